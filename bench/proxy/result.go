package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// result is what is written: by row and target.
type result struct {
	Commit  string    `json:"commit"`
	N       int       `json:"n"`
	Seconds int       `json:"seconds"`
	Command string    `json:"command"`
	Load    string    `json:"load"` // of the machine, when it began
	Rows    []*figure `json:"rows"`
}

type figure struct {
	Row     string               `json:"row"`
	Unit    string               `json:"unit"`
	Values  map[string][]float64 `json:"values"`
	Median  map[string]float64   `json:"median"`
	Failed  map[string]string    `json:"failed,omitempty"` // the last failure
	Bars    []verdict            `json:"bars,omitempty"`
	bars    []bar
	targets []string
}

type verdict struct {
	Bar   string  `json:"bar"`
	Ratio float64 `json:"ratio,omitempty"`
	Met   bool    `json:"met"`
}

func newResult() *result {
	commit, _ := exec.Command("git", "rev-parse", "--short", "HEAD").Output()
	load, _ := os.ReadFile("/proc/loadavg")
	return &result{Commit: strings.TrimSpace(string(commit)), Seconds: *seconds, Load: strings.TrimSpace(string(load)),
		Command: fmt.Sprintf("go run ./bench/proxy -rivals DIR -n %d -seconds %d -rows '%s'", *runs, *seconds, *which)}
}

// note adds a value, or why there is none, and tells whoever waits.
func (r *result) note(row row, target string, v float64, err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s, %s: %v\n", row.name, target, err)
	} else {
		fmt.Fprintf(os.Stderr, "%s, %s: %.2f %s\n", row.name, target, v, row.unit)
	}
	r.add(row, target, v, err)
}

func (r *result) add(row row, target string, v float64, err error) {
	i := slices.IndexFunc(r.Rows, func(f *figure) bool { return f.Row == row.name })
	if i < 0 {
		i = len(r.Rows)
		r.Rows = append(r.Rows, &figure{Row: row.name, Unit: row.unit, Values: map[string][]float64{}, Median: map[string]float64{}, Failed: map[string]string{}, bars: row.bars})
	}
	f := r.Rows[i]
	if !slices.Contains(f.targets, target) {
		f.targets = append(f.targets, target)
	}
	if err != nil {
		text, _, _ := strings.Cut(err.Error(), "\n")
		f.Failed[target] = text
		return
	}
	f.Values[target] = append(f.Values[target], v)
}

// finish works out medians and holds them against the bars.
func (f *figure) finish() {
	f.Bars = nil
	for name, v := range f.Values {
		f.Median[name] = slices.Sorted(slices.Values(v))[len(v)/2]
	}
	for _, b := range f.bars {
		v := verdict{Bar: b.String()}
		who, there := f.Median[b.who]
		rival := f.Median[b.rival]
		if rival != 0 {
			v.Ratio = who / rival
		}
		v.Met = there && b.met(who, rival)
		f.Bars = append(f.Bars, v)
	}
}

func (r *result) write(dir string) error {
	for _, f := range r.Rows {
		f.finish()
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "proxy.json"), append(b, '\n'), 0o644)
}

func (r *result) print() {
	for _, f := range r.Rows {
		f.print()
	}
}

// print is a row as text: each target's median with its spread, then the bars.
func (f *figure) print() {
	fmt.Printf("%s (%s)\n", f.Row, f.Unit)
	for _, t := range f.targets {
		v := f.Values[t]
		if len(v) == 0 {
			fmt.Printf("  %-12s failed: %s\n", t, f.Failed[t])
			continue
		}
		fmt.Printf("  %-12s %9.2f  [%.2f - %.2f]", t, f.Median[t], slices.Min(v), slices.Max(v))
		if base := f.Median["pgbouncer"]; base != 0 && t != "pgbouncer" {
			fmt.Printf("  %.2fx", f.Median[t]/base)
		}
		fmt.Println()
	}
	for _, b := range f.Bars {
		word := "MISSED"
		if b.Met {
			word = "met"
		}
		fmt.Printf("  bar: %s: %.2fx, %s\n", b.Bar, b.Ratio, word)
	}
}
