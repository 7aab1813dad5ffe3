package backup

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// neighbour is a cluster of this host that a restore must leave alone.
type neighbour struct {
	dir      string            // its data directory, links resolved
	spaces   map[string]string // oid to the directory of a tablespace, links resolved
	running  bool
	systemID uint64 // 0 when it cannot be read
}

// neighbours are the clusters of the given data directories, and those whose
// postmasters this user sees running; not the one in dir.
func neighbours(ctx context.Context, dir string, dirs []string) []neighbour {
	running := runningDirs()
	var out []neighbour
	seen := map[string]bool{resolve(dir): true}
	for _, d := range slices.Concat(running, dirs) {
		d = resolve(d)
		if seen[d] {
			continue
		}
		seen[d] = true
		n := neighbour{dir: d, spaces: spaceLinks(d), running: slices.Contains(running, d)}
		if c, err := ReadControl(ctx, d); err == nil {
			n.systemID = c.SystemID
		}
		out = append(out, n)
	}
	return out
}

// runningDirs are the data directories of the postmasters that this user may
// look at: a postmaster works in its data directory, and its number is there.
func runningDirs() []string {
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
			out = append(out, resolve(dir))
		}
	}
	return out
}

// spaceLinks are the tablespaces of a data directory: oid to directory.
func spaceLinks(dir string) map[string]string {
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
			out[e.Name()] = resolve(dst)
		}
	}
	return out
}

// resolve gives a path without symbolic links, as far as it exists.
func resolve(path string) string {
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

// overlap says whether one directory is, or lies in, the other.
func overlap(a, b string) bool {
	return a == b || strings.HasPrefix(a+"/", strings.TrimSuffix(b, "/")+"/") || strings.HasPrefix(b+"/", strings.TrimSuffix(a, "/")+"/")
}

// taken says whose a directory is; "" when it is nobody's.
func (n *neighbour) taken(dir string) string {
	state := "the data directory of a cluster of this host"
	if n.running {
		state = "the data directory of a running PostgreSQL"
	}
	if overlap(dir, n.dir) {
		return fmt.Sprintf("%s, %s", state, n.dir)
	}
	for oid, space := range n.spaces {
		if overlap(dir, space) {
			return fmt.Sprintf("tablespace %s (%s) of the cluster in %s", oid, space, n.dir)
		}
	}
	return ""
}

// checkNeighbours refuses every directory that another cluster of this host
// uses, and a recovery that would make tablespaces where such a one has its own:
// replaying CREATE TABLESPACE goes to the place that is in the WAL, and no map
// of a restore changes that.
func (r *restore) checkNeighbours(ctx context.Context) error {
	all := neighbours(ctx, r.Dir, r.Others)
	for _, dir := range r.targets() {
		for i := range all {
			if whose := all[i].taken(resolve(dir.path)); whose != "" {
				return fail(CodePathNotEmpty, dir.hint, "unable to restore %s to %s: it is, or overlaps, %s", dir.what, dir.path, whose)
			}
		}
	}
	if r.Locked || r.Type == RestoreNone || r.Type == RestoreImmediate {
		return nil // a member itself, or no WAL beyond the backup
	}
	for _, n := range all {
		if n.systemID != r.m.DB.SystemID {
			continue
		}
		for oid, dir := range n.spaces {
			if _, known := r.spaces[oid]; !known {
				return fail(CodeTablespaceMap, "Make a new backup and restore that one, or restore on a host without a database of this herd, or with --type=immediate.",
					"tablespace %s in %s was created after backup %s: recovery would create it there once more, in the files of the cluster in %s", oid, dir, r.m.Label, n.dir)
			}
		}
	}
	return nil
}

// target is a directory that a restore writes to.
type target struct {
	path, what, hint string
	own              bool // an earlier restore into the data directory uses it already
}

// targets are all directories to which the restore writes, the data directory
// first.
func (r *restore) targets() []target {
	own := map[string]bool{}
	for _, dir := range spaceLinks(r.Dir) {
		own[dir] = true
	}
	out := []target{{path: r.Dir, what: "the data directory", hint: "Choose a new directory."}}
	for _, t := range r.m.Targets {
		if dir, ok := r.spaces[t.TablespaceID]; ok {
			out = append(out, target{path: dir, what: "tablespace " + t.TablespaceName, own: own[resolve(dir)],
				hint: fmt.Sprintf("Give it an empty directory: --tablespace-map=%s=DIR", mapKey(t.TablespaceName, t.TablespaceID))})
		}
	}
	for name := range r.links {
		if dst, ok := r.linkDir(name); ok {
			have, err := os.Readlink(r.path(name))
			out = append(out, target{path: dst, what: "the link " + name, own: err == nil && have == r.links[name], hint: "Leave --link-all out: what it leads to is then restored into the data directory."})
		}
	}
	return out
}

// mapKey is what a tablespace is called on a command line.
func mapKey(name, oid string) string {
	if name == "" || strings.ContainsAny(name, "= '\"") {
		return oid
	}
	return name
}
