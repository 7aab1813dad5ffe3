package backup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"manada/internal/durable"
	"manada/internal/repo"
)

// owners gives restored files their owners, which only root can.
type owners struct {
	root     bool
	uid, gid int // for names that this host does not have: the directory's own
	users    map[repo.Owner]int
	groups   map[repo.Owner]int
}

func newOwners(dir string) *owners {
	o := &owners{root: os.Geteuid() == 0, users: map[repo.Owner]int{}, groups: map[repo.Owner]int{}}
	if st, err := os.Stat(dir); err == nil {
		s := st.Sys().(*syscall.Stat_t)
		o.uid, o.gid = int(s.Uid), int(s.Gid)
	}
	return o
}

// preload resolves all names, so that the maps are only read afterwards.
func (o *owners) preload(m *repo.Manifest) {
	if !o.root {
		return
	}
	add := func(u, g repo.Owner) {
		if _, ok := o.users[u]; !ok {
			o.users[u] = o.uid
			if x, err := user.Lookup(string(u)); err == nil {
				o.users[u], _ = strconv.Atoi(x.Uid)
			}
		}
		if _, ok := o.groups[g]; !ok {
			o.groups[g] = o.gid
			if x, err := user.LookupGroup(string(g)); err == nil {
				o.groups[g], _ = strconv.Atoi(x.Gid)
			}
		}
	}
	for i := range m.Files {
		add(m.Files[i].User, m.Files[i].Group)
	}
	for _, p := range m.Paths {
		add(p.User, p.Group)
	}
	for _, l := range m.Links {
		add(l.User, l.Group)
	}
	add(m.FileDefault.User, m.FileDefault.Group)
}

func (o *owners) apply(path string, u, g repo.Owner) error {
	if !o.root {
		return nil
	}
	return os.Lchown(path, o.users[u], o.groups[g])
}

// mapTargets decides where each tablespace and link goes.
func (r *restore) mapTargets() error {
	r.spaces, r.links = map[string]string{}, map[string]string{}
	used := map[string]bool{}
	for _, t := range r.m.Targets {
		switch {
		case t.TablespaceID != "":
			dir := t.Path
			if r.TablespaceMapAll != "" {
				dir = filepath.Join(r.TablespaceMapAll, t.TablespaceName)
			}
			for _, key := range []string{t.TablespaceName, t.TablespaceID} {
				if d, ok := r.TablespaceMap[key]; ok {
					dir, used[key] = d, true
				}
			}
			r.spaces[t.TablespaceID] = r.absolute(dir, "pg_tblspc")
			r.links[repo.TargetData+"/"+t.Name] = dir
		case t.Link && r.LinkAll:
			r.links[t.Name] = filepath.Join(t.Path, t.File)
		case t.Link:
			r.notes.add(fmt.Sprintf("link %s to %s is restored as a part of the data directory", strings.TrimPrefix(t.Name, repo.TargetData+"/"), filepath.Join(t.Path, t.File)))
		}
	}
	for key := range r.TablespaceMap {
		if !used[key] {
			return fail(CodeTablespaceMap, "Use the name or the oid of a tablespace of the backup.", "the backup has no tablespace %q to map", key)
		}
	}
	seen := map[string]string{r.Dir: "the data directory"}
	for oid, dir := range r.spaces {
		for other, what := range seen {
			if dir == other || strings.HasPrefix(dir+"/", other+"/") || strings.HasPrefix(other+"/", dir+"/") {
				return fail(CodeTablespaceMap, "Map it to a directory of its own.", "tablespace %s would go to %s, which overlaps %s (%s)", oid, dir, what, other)
			}
		}
		seen[dir] = "tablespace " + oid
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

// path maps a manifest's name to where it is restored.
func (r *restore) path(name string) string {
	if rest, ok := strings.CutPrefix(name, repo.TargetTblsp+"/"); ok {
		oid, rest, _ := strings.Cut(rest, "/")
		return filepath.Join(r.spaces[oid], rest)
	}
	return filepath.Join(r.Dir, strings.TrimPrefix(name, repo.TargetData))
}

// spaceDir is the version's own directory in a tablespace, as a manifest's name.
func (r *restore) spaceDir(oid string) string {
	return fmt.Sprintf("%s/%s/PG_%s_%d", repo.TargetTblsp, oid, r.m.DB.Version, r.m.DB.Catalog)
}

// checkDirs refuses to restore over anything unless that was asked for, and then
// still where nothing says that it is a data directory.
func (r *restore) checkDirs() error {
	if r.delta && !empty(r.Dir) && !exists(filepath.Join(r.Dir, "PG_VERSION")) && !exists(filepath.Join(r.Dir, repo.ManifestFile)) {
		return fail(CodePathNotEmpty, "Is this the right directory? Empty it to restore into it.",
			"%s has files but neither PG_VERSION nor backup.manifest: it does not look like a data directory", r.Dir)
	}
	if r.delta {
		return nil
	}
	dirs := []string{r.Dir}
	for oid := range r.spaces {
		dirs = append(dirs, r.path(r.spaceDir(oid)))
	}
	for name, dst := range r.links {
		if !strings.HasPrefix(name, repo.TargetData+"/pg_tblspc/") {
			dirs = append(dirs, r.absolute(dst, filepath.Dir(strings.TrimPrefix(name, repo.TargetData+"/"))))
		}
	}
	for _, d := range dirs {
		if !empty(d) {
			return fail(CodePathNotEmpty, "Use --delta to replace what is there, if that is what you want.",
				"unable to restore to %s because it contains files", d)
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

// prepareDirs makes the directory unstartable, removes what the backup does not
// have, and makes directories and links.
func (r *restore) prepareDirs() error {
	if err := os.Remove(filepath.Join(r.Dir, "global", "pg_control")); err == nil {
		if err := durable.SyncDir(filepath.Join(r.Dir, "global")); err != nil {
			return err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// Says that this is a restore to be continued, also when PG_VERSION is gone.
	if err := os.WriteFile(filepath.Join(r.Dir, repo.ManifestFile), r.data, 0o600); err != nil {
		return err
	}
	r.owners.preload(r.m)
	if err := r.clean(); err != nil {
		return fmt.Errorf("clean: %w", err)
	}
	for _, p := range r.m.Paths { // ascending: parents first
		if p.Name == repo.TargetTblsp {
			continue
		}
		if err := r.makeDir(p); err != nil {
			return err
		}
	}
	return nil
}

func (r *restore) makeDir(p repo.Path) error {
	path := r.path(p.Name)
	if dst, ok := r.links[p.Name]; ok {
		if err := os.MkdirAll(r.absolute(dst, filepath.Dir(strings.TrimPrefix(p.Name, repo.TargetData+"/"))), 0o700); err != nil {
			return err
		}
		if err := r.makeLink(p.Name, dst); err != nil {
			return err
		}
	} else if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	if err := os.Chmod(path, fs.FileMode(p.Mode)&fs.ModePerm); err != nil {
		return err
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	if err := r.owners.apply(path, p.User, p.Group); err != nil {
		return err
	}
	if p.Name == repo.TargetData+"/pg_tblspc" {
		return r.makeSpaceLinks()
	}
	return nil
}

func (r *restore) makeSpaceLinks() error {
	for oid := range r.spaces {
		name := repo.TargetData + "/pg_tblspc/" + oid
		if err := os.MkdirAll(r.spaces[oid], 0o700); err != nil {
			return err
		}
		if err := r.makeLink(name, r.links[name]); err != nil {
			return err
		}
	}
	return nil
}

func (r *restore) makeLink(name, dst string) error {
	path := r.path(name)
	if have, err := os.Readlink(path); err != nil || have != dst {
		if err := os.Symlink(dst, path); err != nil {
			return err
		}
	}
	for _, l := range r.m.Links {
		if l.Name == name {
			return r.owners.apply(path, l.User, l.Group)
		}
	}
	return nil
}

// clean removes from the data directory, and from the tablespaces' own
// directories of this version, what the backup does not have. It never leaves
// them through a link.
func (r *restore) clean() error {
	dirs := map[string]bool{}
	for _, p := range r.m.Paths {
		dirs[p.Name] = true
	}
	if err := r.cleanDir(repo.TargetData, r.Dir, dirs); err != nil {
		return err
	}
	for oid := range r.spaces {
		name := r.spaceDir(oid)
		if err := r.cleanDir(name, r.path(name), dirs); err != nil {
			return err
		}
	}
	for name, dst := range r.links {
		if dirs[name] && !strings.HasPrefix(name, repo.TargetData+"/pg_tblspc/") {
			if err := r.cleanDir(name, r.absolute(dst, filepath.Dir(strings.TrimPrefix(name, repo.TargetData+"/"))), dirs); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *restore) cleanDir(name, path string, dirs map[string]bool) error {
	es, err := os.ReadDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range es {
		child, at := name+"/"+e.Name(), filepath.Join(path, e.Name())
		if child == repo.TargetData+"/"+repo.ManifestFile {
			continue
		}
		dst, linked := r.links[child]
		keep := false
		switch {
		case e.Type()&fs.ModeSymlink != 0:
			have, err := os.Readlink(at)
			keep = linked && err == nil && have == dst
		case e.IsDir() && dirs[child] && !linked:
			if err := r.cleanDir(child, at, dirs); err != nil {
				return err
			}
			keep = true
		case e.Type().IsRegular():
			keep = r.m.Find(child) != nil && !linked
		}
		if keep {
			continue
		}
		// Of a link, RemoveAll removes the link only.
		if err := os.RemoveAll(at); err != nil {
			return err
		}
	}
	return nil
}

// roots lists the directories whose file systems the restore has written to.
func (r *restore) roots() []string {
	out := []string{r.Dir}
	for _, d := range r.spaces {
		out = append(out, d)
	}
	for name, dst := range r.links {
		if d := r.absolute(dst, filepath.Dir(strings.TrimPrefix(name, repo.TargetData+"/"))); !slices.Contains(out, d) {
			out = append(out, d)
		}
	}
	return out
}
