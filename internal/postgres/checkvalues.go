package postgres

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

var refusedParameter = regexp.MustCompile(`(?:LOG|FATAL|ERROR): +(.*parameter "([^"]+)".*)`)

// CheckValues asks the server program in binDir which of the settings it would
// refuse to start with, a misspelt name or a value of the wrong form, and why.
// What only shows when it runs, as a library that is not there, it cannot tell.
func CheckValues(ctx context.Context, binDir string, params map[string]string) (refused map[string]string, err error) {
	refused, left := map[string]string{}, maps.Clone(params)
	for len(left) > 0 { // with a name that it does not know it looks at no value
		bad, err := refusedValues(ctx, binDir, left)
		if err != nil || len(bad) == 0 {
			return refused, err
		}
		maps.Copy(refused, bad)
		for n := range bad {
			delete(left, n)
		}
	}
	return refused, nil
}

func refusedValues(ctx context.Context, binDir string, params map[string]string) (refused map[string]string, err error) {
	dir, err := os.MkdirTemp("", "manada-settings-")
	if err != nil {
		return nil, fmt.Errorf("check settings: %w", err)
	}
	defer os.RemoveAll(dir)
	var names []string
	for n := range params {
		names = append(names, n)
	}
	slices.Sort(names)
	var b strings.Builder
	for _, n := range names {
		fmt.Fprintf(&b, "%s = %s\n", n, quote(params[n]))
	}
	b.WriteString("log_line_prefix = ''\nlog_min_messages = warning\nlog_error_verbosity = default\n") // its words are read
	if err := os.WriteFile(filepath.Join(dir, "postgresql.conf"), []byte(b.String()), 0o600); err != nil {
		return nil, fmt.Errorf("check settings: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	// -C as the first argument: it prints one setting and starts nothing, as
	// root too.
	cmd := exec.CommandContext(ctx, filepath.Join(binDir, "postgres"), "-C", "data_directory", "-D", dir)
	cmd.Env = []string{"LC_ALL=C.UTF-8"}
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil, nil
	}
	refused = map[string]string{}
	for _, m := range refusedParameter.FindAllStringSubmatch(string(out), -1) {
		for _, n := range names {
			if strings.EqualFold(n, m[2]) {
				refused[n], _, _ = strings.Cut(m[1], " in file ")
			}
		}
	}
	if len(refused) == 0 {
		return nil, fmt.Errorf("check settings: %w: %s", err, tail(out))
	}
	return refused, nil
}
