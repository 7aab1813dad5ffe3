package datadir

import (
	"os"
	"path/filepath"
	"strings"
)

// Running are the data directories of the postmasters that this user may look
// at, links resolved: a postmaster works in its data directory, and its number is
// there.
func Running() []string {
	var out []string
	procs, _ := filepath.Glob("/proc/[0-9]*/cwd")
	for _, p := range procs {
		dir, err := os.Readlink(p)
		if err != nil {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, "postmaster.pid"))
		if err != nil {
			continue
		}
		first, _, _ := strings.Cut(string(b), "\n")
		if strings.TrimSpace(first) == filepath.Base(filepath.Dir(p)) {
			out = append(out, Resolve(dir))
		}
	}
	return out
}

// Tablespaces are those of a data directory: oid to directory, links resolved.
func Tablespaces(dir string) map[string]string {
	out := map[string]string{}
	in := filepath.Join(dir, "pg_tblspc")
	es, err := os.ReadDir(in)
	if err != nil {
		return out
	}
	for _, e := range es {
		if dst, err := os.Readlink(filepath.Join(in, e.Name())); err == nil {
			if !filepath.IsAbs(dst) {
				dst = filepath.Join(in, dst)
			}
			out[e.Name()] = Resolve(dst)
		}
	}
	return out
}

// Resolve gives a path without symbolic links, as far as it exists.
func Resolve(path string) string {
	path = filepath.Clean(path)
	rest := ""
	for at := path; ; at = filepath.Dir(at) {
		if real, err := filepath.EvalSymlinks(at); err == nil {
			return filepath.Join(real, rest)
		}
		if at == filepath.Dir(at) {
			return path
		}
		rest = filepath.Join(filepath.Base(at), rest)
	}
}

// Overlap says whether one directory is, or lies in, the other.
func Overlap(a, b string) bool {
	return a == b || strings.HasPrefix(a+"/", strings.TrimSuffix(b, "/")+"/") || strings.HasPrefix(b+"/", strings.TrimSuffix(a, "/")+"/")
}

// Holds is the first thing that somebody has put into a folder, "" where nobody
// has put anything; mkfs has its lost+found in a new mount point.
func Holds(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if e.Name() != "lost+found" {
			return e.Name(), nil
		}
	}
	return "", err
}
