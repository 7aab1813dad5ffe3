package backup

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"manada/internal/durable"
	"manada/internal/repo"
)

const manifestName = repo.TargetData + "/" + repo.ManifestFile

// openDirs makes the directories that the restore writes to, and opens them.
func (r *restore) openDirs() error {
	r.tree = &tree{spots: map[string]spot{}}
	open := func(name, dir, file string) error {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		return r.tree.open(name, dir, file)
	}
	if err := open(repo.TargetData, r.Dir, ""); err != nil {
		return err
	}
	for oid, dir := range r.spaces {
		if err := open(spotName(oid), dir, ""); err != nil {
			return err
		}
	}
	for name := range r.links {
		dir, ok := r.linkDir(name)
		file := ""
		if ok && r.linkFile[name] {
			dir, file = filepath.Dir(dir), filepath.Base(dir)
		}
		if ok {
			if err := open(name, dir, file); err != nil {
				return err
			}
		}
	}
	return nil
}

// prepareDirs makes the directory unstartable, removes what the backup does not
// have, and makes directories and links.
func (r *restore) prepareDirs() error {
	if err := r.openDirs(); err != nil {
		return err
	}
	if err := r.tree.remove(controlName); err == nil {
		if err := durable.SyncDir(filepath.Join(r.Dir, "global")); err != nil {
			return err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// Says that this is a restore to be continued, also when PG_VERSION is gone.
	if err := r.tree.write(manifestName, r.data); err != nil {
		return err
	}
	r.owners.preload(r.m)
	// The links come first: they say whose the directories are if this ends here.
	if err := r.makeLinks(); err != nil {
		return err
	}
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
	if err := r.tree.mkdir(p.Name); err != nil {
		return err
	}
	if err := r.tree.chmod(p.Name, p.Mode); err != nil {
		return err
	}
	return r.owners.apply(r.tree, p.Name, p.User, p.Group)
}

// makeLinks makes the links of tablespaces and those that lead to where they
// led. Their names are written with the data directory alone open: under them is
// what they lead to.
func (r *restore) makeLinks() error {
	data := &tree{spots: map[string]spot{repo.TargetData: r.tree.spots[repo.TargetData]}}
	for _, name := range slices.Sorted(maps.Keys(r.links)) {
		if err := makeParents(data, name); err != nil {
			return err
		}
		if err := data.link(name, r.links[name]); err != nil {
			return err
		}
		for _, l := range r.m.Links {
			if l.Name == name {
				if err := r.owners.apply(data, name, l.User, l.Group); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// makeParents makes the directories above a name; what is there and is none
// goes.
func makeParents(t *tree, name string) error {
	parts := strings.Split(name, "/")
	for n := 2; n < len(parts); n++ {
		above := strings.Join(parts[:n], "/")
		err := t.on(above, func(s spot) error {
			if st, err := s.root.Lstat(s.rel); err == nil && !st.IsDir() {
				return s.root.Remove(s.rel)
			}
			return nil
		})
		if err == nil {
			err = t.mkdir(above)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// clean removes from the data directory, and from the tablespaces' own
// directories of this version, what the backup does not have.
func (r *restore) clean() error {
	dirs := map[string]bool{}
	for _, p := range r.m.Paths {
		dirs[p.Name] = true
	}
	roots := []string{repo.TargetData}
	for oid := range r.spaces {
		roots = append(roots, r.m.SpaceDir(oid))
	}
	for name := range r.links {
		if _, ok := r.linkDir(name); ok && !r.linkFile[name] {
			roots = append(roots, name)
		}
	}
	for _, name := range roots {
		if err := r.cleanDir(name, dirs); err != nil {
			return err
		}
	}
	return nil
}

func (r *restore) cleanDir(name string, dirs map[string]bool) error {
	es, err := r.tree.list(name)
	if err != nil {
		return err
	}
	for _, e := range es {
		child := name + "/" + e.Name()
		_, linked := r.links[child] // made already, as it has to be
		keep := linked || child == manifestName
		switch {
		case keep:
		case e.IsDir() && (dirs[child] || child == repo.TargetData+"/pg_tblspc"):
			if err := r.cleanDir(child, dirs); err != nil {
				return err
			}
			keep = true
		case e.Type().IsRegular():
			keep = r.m.Find(child) != nil
		}
		if keep {
			continue
		}
		if err := r.tree.removeAll(child); err != nil {
			return err
		}
	}
	return nil
}

// roots lists the directories whose file systems the restore has written to.
func (r *restore) roots() []string {
	var out []string
	for _, t := range r.targets() {
		if st, err := os.Stat(t.path); err == nil && !st.IsDir() {
			t.path = filepath.Dir(t.path)
		}
		if !slices.Contains(out, t.path) {
			out = append(out, t.path)
		}
	}
	return out
}
