package postgres

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Rendered is a setting as it is given to PostgreSQL. From is "default" (ours,
// may be overridden), "user" or "manada" (ours alone).
type Rendered struct{ Name, Value, From string }

// Rendered lists the settings in the order in which they are rendered.
func (i *Instance) Rendered() []Rendered {
	i.confMu.Lock()
	defer i.confMu.Unlock()
	var out []Rendered
	set := map[string]bool{}
	for n, v := range i.cfg.Params {
		out = append(out, Rendered{n, v, "user"})
		set[strings.ToLower(n)] = true
	}
	slices.SortFunc(out, func(a, b Rendered) int { return strings.Compare(a.Name, b.Name) })
	for _, s := range i.defaults() {
		if !set[s.name] {
			out = append(out, Rendered{s.name, s.value, "default"})
		}
	}
	for _, s := range i.fixed() {
		out = append(out, Rendered{s.name, s.value, "manada"})
	}
	return out
}

// CheckValue asks the server program whether it knows the setting and takes the
// value, and looks for the libraries that it names; nothing is started. The error
// is PostgreSQL's own sentence.
func (i *Instance) CheckValue(ctx context.Context, name, value string) error {
	if err := CheckParams(map[string]string{name: value}); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for _, why := range missingLibraries(ctx, i.cfg.BinDir, map[string]string{name: value}) {
		return errors.New(why)
	}
	cmd := exec.CommandContext(ctx, filepath.Join(i.cfg.BinDir, "postgres"), "-D", i.cfg.DataDir, "-C", name, "-c", name+"="+value)
	cmd.Env = []string{"LC_ALL=C"}
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	for _, line := range strings.Split(string(out), "\n") {
		if _, text, ok := strings.Cut(line, "FATAL:  "); ok {
			return errors.New(text)
		}
	}
	return fmt.Errorf("check %s: %w: %s", name, err, strings.TrimSpace(string(out)))
}

// NeedsRestart says whether a setting takes effect at a start only; false when
// that cannot be told now.
func (i *Instance) NeedsRestart(ctx context.Context, name string) bool {
	v, err := i.value(ctx, "select context = 'postmaster' from pg_settings where name = "+literal(name))
	return err == nil && v == "t"
}
