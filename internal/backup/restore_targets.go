package backup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"manada/internal/datadir"
	"manada/internal/repo"
)

// mapTargets decides where each tablespace and link goes.
func (r *restore) mapTargets() error {
	r.spaces, r.links = map[string]string{}, map[string]string{}
	used := map[string]bool{}
	for _, t := range r.m.Targets {
		switch {
		case t.TablespaceID != "":
			dir, err := r.mapSpace(t, used)
			if err != nil {
				return err
			}
			r.spaces[t.TablespaceID] = dir
			r.links[repo.TargetData+"/"+t.Name] = dir
		case t.Link && r.LinkAll:
			r.links[t.Name] = filepath.Join(t.Path, t.File)
			r.linkFile[t.Name] = t.File != ""
		case t.Link:
			r.notes.add(fmt.Sprintf("link %s to %s is restored as a part of the data directory", strings.TrimPrefix(t.Name, repo.TargetData+"/"), filepath.Join(t.Path, t.File)))
		}
	}
	for key := range r.TablespaceMap {
		if !used[key] {
			return fail(CodeTablespaceMap, "Use the name or the oid of a tablespace of the backup.", "the backup has no tablespace %q to map", key)
		}
	}
	return r.checkApart()
}

// mapSpace says where a tablespace goes: where it was, unless it is mapped.
func (r *restore) mapSpace(t repo.Target, used map[string]bool) (string, error) {
	dir, own := t.Path, false
	for _, key := range []string{t.TablespaceID, t.TablespaceName} { // a name wins over an oid
		if d, ok := r.TablespaceMap[key]; ok {
			dir, used[key], own = d, true, true
		}
	}
	if r.TablespaceMapAll != "" && !own {
		if strings.Contains(t.TablespaceName, "/") || t.TablespaceName == ".." || t.TablespaceName == "." || t.TablespaceName == "" {
			return "", fail(CodeTablespaceMap, "Map it by its oid: --tablespace-map="+t.TablespaceID+"=DIR", "the name %q of tablespace %s cannot be the name of a directory", t.TablespaceName, t.TablespaceID)
		}
		dir = filepath.Join(r.TablespaceMapAll, t.TablespaceName)
	}
	if !filepath.IsAbs(dir) {
		return "", fail(CodeTablespaceMap, "Give an absolute path.", "tablespace %s would go to %q", t.TablespaceName, dir)
	}
	return filepath.Clean(dir), nil
}

// checkApart: no two targets are in one another.
func (r *restore) checkApart() error {
	all := r.targets()
	for i, a := range all {
		for _, b := range all[:i] {
			if datadir.Overlap(datadir.Resolve(a.path), datadir.Resolve(b.path)) {
				return fail(CodeTablespaceMap, "Map it to a directory of its own.", "%s would go to %s, which overlaps %s (%s)", a.what, a.path, b.what, b.path)
			}
		}
	}
	return nil
}

// absolute resolves where a link in the given directory of PGDATA leads.
func (r *restore) absolute(dst, in string) string {
	if filepath.IsAbs(dst) {
		return filepath.Clean(dst)
	}
	return filepath.Join(r.Dir, in, dst)
}

// linkDir is the directory to which a link of the restore leads, or the one of
// the file to which it does; false for a tablespace's.
func (r *restore) linkDir(name string) (dir string, ok bool) {
	dst, ok := r.links[name]
	rel := strings.TrimPrefix(name, repo.TargetData+"/")
	if !ok || strings.HasPrefix(rel, "pg_tblspc/") {
		return "", false
	}
	return r.absolute(dst, filepath.Dir(rel)), true
}

// path maps the name of something in PGDATA to where it is.
func (r *restore) path(name string) string {
	return filepath.Join(r.Dir, strings.TrimPrefix(name, repo.TargetData))
}

// checkDirs refuses to restore over anything unless that was asked for, and then
// still where nothing says that it is a data directory. A tablespace's directory
// and what a link leads to must be empty, or used by an earlier restore into the
// same data directory: no option makes it go over somebody else's.
func (r *restore) checkDirs() error {
	if !r.over && !empty(r.Dir) {
		return fail(CodePathNotEmpty, "Choose a new directory; --delta completes or repeats an earlier restore into this one.",
			"unable to restore to %s because it contains files", r.Dir)
	}
	if r.over && !empty(r.Dir) && !exists(filepath.Join(r.Dir, "PG_VERSION")) && !exists(filepath.Join(r.Dir, repo.ManifestFile)) {
		return fail(CodePathNotEmpty, "Is this the right directory? Empty it to restore into it.",
			"%s has files but neither PG_VERSION nor backup.manifest: it does not look like a data directory", r.Dir)
	}
	for _, t := range r.targets()[1:] {
		if !empty(t.path) && !(r.over && t.own) {
			return fail(CodePathNotEmpty, t.hint, "unable to restore %s to %s because it contains files", t.what, t.path)
		}
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// empty says whether a directory is missing or has nothing in it; a file is not.
func empty(dir string) bool {
	es, err := os.ReadDir(dir)
	return errors.Is(err, fs.ErrNotExist) || err == nil && len(es) == 0
}
