package postgres

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"manada/internal/datadir"
	"manada/internal/durable"
)

// ErrSpace: a tablespace cannot be where the source has it.
var ErrSpace = errors.New("no place for a tablespace")

// space is a tablespace of a source. A copy has it at the same path.
type space struct{ oid, path string }

// stage is where pg_basebackup puts it first: it wants an empty directory, and
// the tablespace's may be a mount point, or hold files of somebody else.
func (s space) stage() string { return filepath.Join(s.path, ".manada.clone") }

// sourceSpaces asks the source for its tablespaces.
func (i *Instance) sourceSpaces(ctx context.Context, s Source, name string) ([]space, error) {
	c, err := i.connectSource(ctx, s, name)
	if err != nil {
		return nil, fmt.Errorf("ask source %s for its tablespaces: %w", s.Node, err)
	}
	defer c.Conn().Close()
	r, err := run(ctx, c, "select oid, pg_tablespace_location(oid) from pg_tablespace where pg_tablespace_location(oid) like '/%' order by oid")
	if err != nil {
		return nil, fmt.Errorf("ask source %s for its tablespaces: %w", s.Node, err)
	}
	var out []space
	for _, row := range r[0] {
		out = append(out, space{string(row[0]), string(row[1])})
	}
	return out, nil
}

// ownSpaces are the directories of this node's own old copy's tablespaces, links
// resolved; also of one whose clone was interrupted.
func (i *Instance) ownSpaces(p *Poison) []string {
	own := slices.Collect(maps.Values(datadir.Tablespaces(i.cfg.DataDir)))
	if p != nil {
		own = append(own, p.Spaces...)
	}
	slices.Sort(own)
	return slices.Compact(own)
}

// sharedSpaces refuses a directory of ours that a running cluster of this machine
// uses: replay makes a tablespace where the primary has it, so two nodes on one
// machine write into each other's.
func (i *Instance) sharedSpaces(dirs []string) error {
	for _, other := range datadir.Running() {
		if other == datadir.Resolve(i.cfg.DataDir) {
			continue
		}
		theirs := append(slices.Collect(maps.Values(datadir.Tablespaces(other))), other)
		for _, dir := range dirs {
			for _, t := range theirs {
				if datadir.Overlap(dir, t) {
					return fmt.Errorf("%w: %s on %s is, or overlaps, %s of the PostgreSQL that runs in %s on the same machine. "+
						"Two nodes on one machine cannot share the path of a tablespace: run this node on a machine of its own, or do without the tablespace",
						ErrSpace, dir, i.cfg.Node, t, other)
				}
			}
		}
	}
	return nil
}

// placeSpaces checks that each tablespace of the source can be at its path here.
func (i *Instance) placeSpaces(all []space, own []string) error {
	dirs := slices.Clone(own)
	for _, s := range all {
		dirs = append(dirs, datadir.Resolve(s.path))
	}
	if err := i.sharedSpaces(dirs); err != nil {
		return err
	}
	for _, s := range all {
		dir := datadir.Resolve(s.path)
		if datadir.Overlap(dir, datadir.Resolve(i.cfg.DataDir)) {
			return fmt.Errorf("%w: %s lies in the data directory of %s, which is made anew", ErrSpace, s.path, i.cfg.Node)
		}
		if err := os.MkdirAll(s.path, 0o700); err != nil {
			return fmt.Errorf("%w: make the folder %s on %s, owned by the user that runs PostgreSQL: %w", ErrSpace, s.path, i.cfg.Node, err)
		}
		if slices.Contains(own, dir) {
			continue
		}
		versions, err := versionDirs(s.path)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrSpace, err)
		}
		for _, v := range versions {
			if e, err := os.ReadDir(v); err != nil || len(e) > 0 {
				return fmt.Errorf("%w: %s on %s holds files that are not of this node's copy; when nobody needs them remove it: rm -r %s", ErrSpace, v, i.cfg.Node, v)
			}
		}
	}
	return nil
}

// withPlaces adds the places of a source's tablespaces to those of the old copy:
// what an interrupted clone has put there is this node's, too.
func withPlaces(own []string, all []space) []string {
	out := slices.Clone(own)
	for _, s := range all {
		out = append(out, datadir.Resolve(s.path))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// versionDirs are what PostgreSQL makes in a tablespace's directory; nothing else
// there is PostgreSQL's.
func versionDirs(dir string) ([]string, error) {
	e, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var out []string
	for _, f := range e {
		if ok, _ := filepath.Match("PG_[0-9]*_[0-9]*", f.Name()); ok {
			out = append(out, filepath.Join(dir, f.Name()))
		}
	}
	return out, nil
}

// emptySpaces removes this node's old copy of its tablespaces, and what an
// interrupted clone has left of a new one. Nothing in them counts: the poison mark
// is set.
func (i *Instance) emptySpaces(own []string, all []space) error {
	for _, dir := range own {
		versions, err := versionDirs(dir)
		for _, v := range versions {
			err = errors.Join(err, os.RemoveAll(v))
		}
		if err != nil {
			return fmt.Errorf("remove the old copy of a tablespace: %w", err)
		}
	}
	for _, s := range all {
		if err := os.RemoveAll(s.stage()); err != nil {
			return fmt.Errorf("remove an interrupted copy of a tablespace: %w", err)
		}
	}
	return nil
}

// spaceArgs are pg_basebackup's.
func spaceArgs(all []space) []string {
	esc := func(path string) string { return strings.ReplaceAll(path, "=", `\=`) }
	var out []string
	for _, s := range all {
		out = append(out, "--tablespace-mapping="+esc(s.path)+"="+esc(s.stage()))
	}
	return out
}

// settleSpaces puts the copied tablespaces in their places and makes the links of
// the copy in dir lead there.
func settleSpaces(dir string, all []space) error {
	for _, s := range all {
		versions, err := versionDirs(s.stage())
		if err != nil {
			return fmt.Errorf("put a tablespace in its place: %w", err)
		}
		for _, v := range versions {
			to := filepath.Join(s.path, filepath.Base(v))
			if err := durable.Rename(v, to); err != nil {
				return fmt.Errorf("put a tablespace in its place: %w", err)
			}
		}
		if err := os.Remove(s.stage()); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("put a tablespace in its place: %w", err)
		}
		link := filepath.Join(dir, "pg_tblspc", s.oid)
		if at, err := os.Readlink(link); errors.Is(err, os.ErrNotExist) || err == nil && at != s.stage() {
			continue // dropped meanwhile
		}
		if err := errors.Join(os.Remove(link), os.Symlink(s.path, link)); err != nil {
			return fmt.Errorf("lead to a tablespace: %w", err)
		}
	}
	return durable.SyncDir(filepath.Join(dir, "pg_tblspc"))
}

// mayRewind refuses a rewind that would write into another node's tablespaces.
func (i *Instance) mayRewind() error {
	return i.sharedSpaces(i.ownSpaces(nil))
}
