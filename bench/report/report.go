// Package report is the form of a measured result: what, by which command, how
// often, with which spread, and how many acknowledged commits were lost. The
// benches write it to bench/results.
package report

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"manada/test/measure"
)

// Result of one bench; values are in Unit.
type Result struct {
	What    string         `json:"what"`
	Commit  string         `json:"commit"`
	N       int            `json:"n"`
	P50     int64          `json:"p50"`
	P95     int64          `json:"p95"`
	Max     int64          `json:"max"`
	Unit    string         `json:"unit"`
	Bar     string         `json:"bar,omitempty"`
	Values  []int64        `json:"values"`
	Lost    int            `json:"lost"`
	Acked   int            `json:"acked"`
	Errors  int            `json:"client_errors"`
	Rejoin  []int64        `json:"rejoin_ms,omitempty"` // from the victim's return to a whole herd
	Rival   string         `json:"rival,omitempty"`
	Ratio   float64        `json:"ratio,omitempty"`
	Seen    map[string]int `json:"errors_seen,omitempty"`
	Command string         `json:"command"`
}

// New is an empty result in milliseconds, of the commit that is checked out.
func New(what string, n int, command string) *Result {
	commit, _ := exec.Command("git", "rev-parse", "--short", "HEAD").Output()
	return &Result{What: what, N: n, Unit: "ms", Commit: strings.TrimSpace(string(commit)), Seen: map[string]int{}, Command: command}
}

// AddOutage takes a run's outage and what its clients saw.
func (r *Result) AddOutage(w *measure.Writer, since time.Time) {
	r.Values = append(r.Values, w.Outage(since).Milliseconds())
	r.Acked += w.Acked()
	r.Errors += w.ErrorCount()
	for k, n := range w.Errors() {
		r.Seen[k] += n
	}
}

// Write works out the spread, says it and writes dir/PREFIX-WHAT.json.
func (r *Result) Write(dir, prefix string) error {
	v := slices.Sorted(slices.Values(r.Values))
	r.P50, r.P95, r.Max = v[len(v)/2], v[min(len(v)-1, len(v)*95/100)], v[len(v)-1]
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	path := filepath.Join(dir, prefix+"-"+r.What+".json")
	fmt.Printf("%s: n %d  median %d  max %d %s  lost %d of %d acknowledged  -> %s\n", r.What, r.N, r.P50, r.Max, r.Unit, r.Lost, r.Acked, path)
	return os.WriteFile(path, append(b, '\n'), 0o644)
}
