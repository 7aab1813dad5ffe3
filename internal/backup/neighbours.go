package backup

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"manada/internal/datadir"
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
	running := datadir.Running()
	var out []neighbour
	seen := map[string]bool{datadir.Resolve(dir): true}
	for _, d := range slices.Concat(running, dirs) {
		d = datadir.Resolve(d)
		if seen[d] {
			continue
		}
		seen[d] = true
		n := neighbour{dir: d, spaces: datadir.Tablespaces(d), running: slices.Contains(running, d)}
		if c, err := ReadControl(ctx, d); err == nil {
			n.systemID = c.SystemID
		}
		out = append(out, n)
	}
	return out
}

// taken says whose a directory is; "" when it is nobody's.
func (n *neighbour) taken(dir string) string {
	state := "the data directory of a cluster of this host"
	if n.running {
		state = "the data directory of a running PostgreSQL"
	}
	if datadir.Overlap(dir, n.dir) {
		return fmt.Sprintf("%s, %s", state, n.dir)
	}
	for oid, space := range n.spaces {
		if datadir.Overlap(dir, space) {
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
			if whose := all[i].taken(datadir.Resolve(dir.path)); whose != "" {
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
	for _, dir := range datadir.Tablespaces(r.Dir) {
		own[dir] = true
	}
	out := []target{{path: r.Dir, what: "the data directory", hint: "Choose a new directory."}}
	for _, t := range r.m.Targets {
		if dir, ok := r.spaces[t.TablespaceID]; ok {
			out = append(out, target{path: dir, what: "tablespace " + t.TablespaceName, own: own[datadir.Resolve(dir)],
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
