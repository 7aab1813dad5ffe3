// Command notices prints the licences of all modules that are linked into the
// program, from the module graph: THIRD-PARTY-NOTICES.
package main

import (
	"bufio"
	"bytes"
	"cmp"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

func main() {
	if err := print(os.Stdout, "./cmd/manada"); err != nil {
		fmt.Fprintln(os.Stderr, "notices:", err)
		os.Exit(1)
	}
}

// module is one that is linked, with the texts that must go along with it.
type module struct {
	path, version string
	texts         []string
}

func print(w io.Writer, pkg string) error {
	mods, err := linked(pkg)
	if err != nil {
		return err
	}
	b := bufio.NewWriter(w)
	fmt.Fprintf(b, "Manada contains what is named below, under these licences.\nMade by  make notices  of the module graph.\n")
	// Modules with the same texts share them.
	by := map[string][]module{}
	for _, m := range mods {
		key := strings.Join(m.texts, "\n\n")
		by[key] = append(by[key], m)
	}
	texts := make([]string, 0, len(by))
	for t := range by {
		texts = append(texts, t)
	}
	slices.SortFunc(texts, func(a, b string) int { return cmp.Compare(by[a][0].path, by[b][0].path) })
	for _, t := range texts {
		fmt.Fprintf(b, "\n%s\n", strings.Repeat("=", 78))
		for _, m := range by[t] {
			fmt.Fprintf(b, "%s %s\n", m.path, m.version)
		}
		fmt.Fprintf(b, "%s\n%s\n", strings.Repeat("-", 78), t)
	}
	return b.Flush()
}

// linked are the modules of a program, and Go itself.
func linked(pkg string) ([]module, error) {
	const form = "{{with .Module}}{{if not .Main}}{{.Path}}\t{{.Version}}\t{{.Dir}}{{end}}{{end}}"
	cmd := exec.Command("go", "list", "-deps", "-f", form, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("list modules: %w", err)
	}
	lines := strings.Fields(strings.ReplaceAll(string(out), "\t", "|"))
	slices.Sort(lines)
	var mods []module
	for _, l := range slices.Compact(lines) {
		f := strings.Split(l, "|")
		texts, err := licences(f[2])
		if err != nil {
			return nil, err
		}
		if len(texts) == 0 {
			return nil, fmt.Errorf("%s has no licence file in %s", f[0], f[2])
		}
		mods = append(mods, module{f[0], f[1], texts})
	}
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return nil, fmt.Errorf("find Go: %w", err)
	}
	texts, err := licences(strings.TrimSpace(string(root)))
	if err != nil || len(texts) == 0 {
		return nil, fmt.Errorf("no licence of Go in %s: %w", strings.TrimSpace(string(root)), err)
	}
	return append(mods, module{"the standard library and runtime of", "Go", texts}), nil
}

var licenceFile = regexp.MustCompile(`(?i)^(licen[cs]e|copying|notice|patents)([-.].*)?$`)

func licences(dir string) (texts []string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.IsDir() || !licenceFile.MatchString(e.Name()) || strings.HasSuffix(e.Name(), ".go") {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		texts = append(texts, string(bytes.TrimSpace(bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n")))))
	}
	return texts, nil
}
