package lint

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/format"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// maxLines is the longest a Go file may be. Most are far shorter: see the log
// of TestFileLength.
const maxLines = 700

func lines(raw []byte) int { return bytes.Count(raw, []byte("\n")) }

func tooLong(s *source) []string {
	if n := lines(s.raw); n > maxLines && !ast.IsGenerated(s.ast) {
		return []string{fmt.Sprintf("%s: %d lines, more than %d: split it by subject", s.path, n, maxLines)}
	}
	return nil
}

func TestFileLength(t *testing.T) {
	holds(t, tooLong)
	var n []int
	for _, s := range sources(t) {
		if !s.isTest() && !ast.IsGenerated(s.ast) {
			n = append(n, lines(s.raw))
		}
	}
	slices.Sort(n)
	t.Logf("%d Go files without tests: median %d lines, p90 %d, longest %d", len(n), n[len(n)/2], n[len(n)*9/10], n[len(n)-1])
}

func unformatted(s *source) []string {
	want, err := format.Source(s.raw)
	if err != nil {
		return []string{fmt.Sprintf("%s: %v", s.path, err)}
	}
	if !bytes.Equal(want, s.raw) {
		return []string{s.path + ": not formatted: run gofmt -w on it"}
	}
	return nil
}

func TestFormatted(t *testing.T) { holds(t, unformatted) }

// undocumented: every package says what it is for, once.
func undocumented(pkg string, fs []*source) []string {
	var docs []string
	code := false
	for _, s := range fs {
		if s.isTest() {
			continue
		}
		code = true
		if s.ast.Doc == nil {
			continue
		}
		text := s.ast.Doc.Text()
		want := "Package " + s.ast.Name.Name + " "
		if s.isMain() {
			want = "Command "
		}
		if strings.HasPrefix(text, want) {
			docs = append(docs, s.path)
		}
	}
	switch {
	case code && len(docs) == 0:
		return []string{pkg + ": no package comment: add doc.go (what it is for, what it does not do, where to start reading)"}
	case len(docs) > 1:
		return []string{fmt.Sprintf("%s: more than one package comment: %s", pkg, strings.Join(docs, ", "))}
	}
	return nil
}

func TestPackagesAreDocumented(t *testing.T) {
	byPkg := map[string][]*source{}
	for _, s := range sources(t) {
		byPkg[s.pkg()] = append(byPkg[s.pkg()], s)
	}
	for _, pkg := range slices.Sorted(maps.Keys(byPkg)) {
		for _, f := range undocumented(pkg, byPkg[pkg]) {
			t.Error(f)
		}
	}
}

// Paths and hosts of the machine that something was made on say nothing to
// anybody else. They are put together here so that this file does not contain
// them.
var (
	machinePath = regexp.MustCompile(`(^|[^A-Za-z0-9_.$})-])/(` + strings.Join([]string{"work", "root/go", "root/." + "cache", "tmp/bash_" + "jobs"}, "|") + `)/`)
	registries  = []string{
		"proxy." + "golang.org", "sum." + "golang.org", "registry." + "npmjs.org", "files." + "pythonhosted.org", "pypi." + "org",
		"registry-1." + "docker.io", "index." + "docker.io", "static." + "crates.io", "rubygems." + "org",
	}
)

// strangers finds what does not belong into a text file of the repository.
func strangers(file string, raw []byte, hosts []string) []string {
	var out []string
	for i, line := range strings.Split(string(raw), "\n") {
		if m := machinePath.FindString(line); m != "" {
			out = append(out, fmt.Sprintf("%s:%d: a path of one machine: %s", file, i+1, strings.TrimSpace(line)))
		}
		for _, h := range hosts {
			if strings.Contains(line, h) {
				out = append(out, fmt.Sprintf("%s:%d: the host of a package registry: %s", file, i+1, h))
			}
		}
	}
	return out
}

// mirrors are the hosts from which this very machine takes packages.
func mirrors(t *testing.T) []string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "env", "GOPROXY").Output()
	if err != nil {
		t.Fatal(err)
	}
	var hosts []string
	for _, s := range append(strings.FieldsFunc(string(out), func(r rune) bool { return r == ',' || r == '|' || r == '\n' }),
		os.Getenv("PIP_INDEX_URL"), os.Getenv("npm_config_registry")) {
		if u, err := url.Parse(s); err == nil && strings.Contains(u.Hostname(), ".") && !strings.HasPrefix(u.Hostname(), "127.") {
			hosts = append(hosts, u.Hostname())
		}
	}
	return hosts
}

func TestNoTraceOfMachinesOrRegistries(t *testing.T) {
	hosts := slices.Concat(registries, mirrors(t))
	for _, f := range allFiles(t) {
		if path.Base(f) == "go.sum" {
			continue
		}
		raw, ok := read(t, f)
		if !ok {
			continue
		}
		for _, s := range strangers(f, raw, hosts) {
			t.Error(s)
		}
	}
}
