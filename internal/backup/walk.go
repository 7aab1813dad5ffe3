package backup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"manada/internal/blob"
	"manada/internal/repo"
)

// What a running cluster's data directory has that no backup needs
// (src/info/manifest/build.c.inc in pgBackRest, basebackup.c in PostgreSQL).
var (
	emptyDirs = []string{"pg_dynshmem", "pg_notify", "pg_replslot", "pg_serial", "pg_snapshots", "pg_stat_tmp", "pg_subtrans"}
	skipFiles = []string{"recovery.signal", "standby.signal", "postgresql.auto.conf.tmp", "backup_label", "backup_label.old",
		"backup_manifest", "backup_manifest.tmp", "postmaster.opts", "postmaster.pid", "tablespace_map", "tablespace_map.old"}
)

const (
	dbPath   = `(?:pg_data/(?:global|base/[0-9]+)|pg_tblspc/[0-9]+/PG_[0-9.]+_[0-9]+/[0-9]+)`
	relation = `[0-9]+(?:_(?:fsm|vm))?(?:\.[0-9]+)?`
)

var (
	dbPathRE   = regexp.MustCompile(`^` + dbPath + `$`)
	relationRE = regexp.MustCompile(`^(` + dbPath + `/[0-9]+)(?:_(?:fsm|vm))?(?:\.[0-9]+)?$`)
	tempRE     = regexp.MustCompile(`^t[0-9]+_` + relation + `$`)
	pagesRE    = regexp.MustCompile(`^[0-9]+(?:_(?:fsm|vm|init))?(?:\.[0-9]+)?$`) // files of pages: what else lies there is not PostgreSQL's
	initRE     = regexp.MustCompile(`^pg_internal\.init(?:\.[0-9]+)?$`)
)

// walker lists a data directory into a manifest.
type walker struct {
	m          *repo.Manifest
	pgdata     string
	tablespace string            // PG_15_202209061
	spaces     map[string]string // oid to name
	checkPages bool
	users      map[uint32]repo.Owner
	groups     map[uint32]repo.Owner
	note       func(string)
	exclude    []string // names relative to PGDATA; with a / at the end, contents
}

// walkCluster fills in the files, links, paths and targets of a manifest.
func walkCluster(m *repo.Manifest, pgdata, tablespace string, spaces map[string]string, checkPages bool, exclude []string, note func(string)) error {
	w := &walker{m: m, pgdata: pgdata, tablespace: tablespace, spaces: spaces, checkPages: checkPages, exclude: exclude, note: note,
		users: map[uint32]repo.Owner{}, groups: map[uint32]repo.Owner{}}
	st, err := os.Stat(pgdata)
	if err != nil {
		return fmt.Errorf("list data directory: %w", err)
	}
	u, g := w.owner(st)
	mode := uint32(st.Mode().Perm())
	m.PathDefault = repo.Default{Group: g, User: u, Mode: mode}
	m.FileDefault = repo.Default{Group: g, User: u, Mode: mode & 0o640}
	m.LinkDefault = repo.Default{Group: g, User: u}
	m.Paths = append(m.Paths, repo.Path{Name: repo.TargetData, Group: g, User: u, Mode: mode})
	m.Targets = append(m.Targets, repo.Target{Name: repo.TargetData, Path: pgdata})
	if err := w.dir(repo.TargetData, pgdata); err != nil {
		return fmt.Errorf("list data directory: %w", err)
	}
	slices.SortFunc(m.Files, func(a, b repo.File) int { return strings.Compare(a.Name, b.Name) })
	w.dropUnlogged()
	return w.writable()
}

// writable finds what cannot be written into a manifest before anything is
// copied. A database is listed for people only, so one with an impossible name,
// which whoever may create databases can make, is left out of the list.
func (w *walker) writable() error {
	w.m.Databases = slices.DeleteFunc(w.m.Databases, func(d repo.Database) bool {
		err := repo.CheckKey(d.Name)
		if err != nil {
			w.note(fmt.Sprintf("database %q (oid %d) is backed up, but not listed: its name cannot be written into %s", d.Name, d.ID, repo.ManifestFile))
		}
		return err != nil
	})
	err := w.m.Writable()
	for i := 0; err == nil && i < len(w.m.Files); i++ {
		if f := &w.m.Files[i]; f.Size > bundleLimit { // a file of its own in the repository
			err = blob.CheckName(f.Name)
		}
	}
	if err != nil {
		return &Error{Code: CodeFormat, Text: "something in the data directory has a name that cannot be backed up", Err: err,
			Hint: "Rename or remove it: pgbackrest could not restore a backup with it either."}
	}
	return nil
}

func (w *walker) owner(st fs.FileInfo) (u, g repo.Owner) {
	s := st.Sys().(*syscall.Stat_t)
	u, ok := w.users[s.Uid]
	if !ok {
		if x, err := user.LookupId(strconv.FormatUint(uint64(s.Uid), 10)); err == nil {
			u = repo.Owner(x.Username)
		}
		w.users[s.Uid] = u
	}
	g, ok = w.groups[s.Gid]
	if !ok {
		if x, err := user.LookupGroupId(strconv.FormatUint(uint64(s.Gid), 10)); err == nil {
			g = repo.Owner(x.Name)
		}
		w.groups[s.Gid] = g
	}
	return u, g
}

// dir lists one directory, which goes by name in the manifest.
func (w *walker) dir(name, path string) error {
	es, err := os.ReadDir(path)
	if errors.Is(err, fs.ErrNotExist) && name != repo.TargetData {
		return nil // dropped since its parent was listed
	}
	if err != nil {
		return err
	}
	inDB := dbPathRE.MatchString(name)
	for _, e := range es {
		child := name + "/" + e.Name()
		if strings.HasPrefix(e.Name(), "pgsql_tmp") || slices.Contains(w.exclude, strings.TrimPrefix(child, repo.TargetData+"/")) {
			continue
		}
		st, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := w.entry(name, child, filepath.Join(path, e.Name()), inDB, st); err != nil {
			return err
		}
	}
	return nil
}

func (w *walker) entry(parent, name, path string, inDB bool, st fs.FileInfo) error {
	inSpaces := parent == repo.TargetData+"/pg_tblspc"
	switch {
	case st.Mode()&fs.ModeSymlink != 0:
		return w.link(parent, name, path, inDB, st)
	case inSpaces:
		return fail(69, "", "%s is not a symbolic link; pg_tblspc should contain nothing else", path)
	case st.IsDir():
		return w.path(parent, name, path, st)
	case st.Mode().IsRegular():
		w.file(parent, name, inDB, st)
		return nil
	}
	w.note("special file " + path + " is not backed up")
	return nil
}

func (w *walker) path(parent, name, path string, st fs.FileInfo) error {
	u, g := w.owner(st)
	w.m.Paths = append(w.m.Paths, repo.Path{Name: name, Group: g, User: u, Mode: uint32(st.Mode().Perm())})
	base := filepath.Base(name)
	if parent == repo.TargetData && slices.Contains(emptyDirs, base) {
		return nil
	}
	if parent == repo.TargetData+"/pg_wal" && base == "archive_status" {
		return nil
	}
	if slices.Contains(w.exclude, strings.TrimPrefix(name, repo.TargetData+"/")+"/") {
		return nil
	}
	return w.dir(name, path)
}

func (w *walker) file(parent, name string, inDB bool, st fs.FileInfo) {
	base := filepath.Base(name)
	switch {
	case inDB && (initRE.MatchString(base) || tempRE.MatchString(base)):
		return
	case parent == repo.TargetData && slices.Contains(skipFiles, base):
		return
	case parent == repo.TargetData+"/pg_wal": // comes from the archive
		return
	}
	u, g := w.owner(st)
	f := repo.File{Name: name, Size: st.Size(), SizeOriginal: st.Size(), SizeRepo: st.Size(), Timestamp: st.ModTime().Unix(),
		Group: g, User: u, Mode: uint32(st.Mode().Perm())}
	f.ChecksumPage = w.checkPages && inDB && pagesRE.MatchString(base)
	w.m.Files = append(w.m.Files, f)
}

// link follows a symbolic link: a tablespace's, or one that somebody made.
func (w *walker) link(parent, name, path string, inDB bool, st fs.FileInfo) error {
	dst, err := os.Readlink(path)
	if err != nil {
		return err
	}
	abs := dst
	if !filepath.IsAbs(abs) {
		abs = filepath.Join(filepath.Dir(path), dst)
	}
	if l, err := os.Lstat(abs); err == nil && l.Mode()&fs.ModeSymlink != 0 {
		return fail(CodeLinkDestination, "", "link %s points to another link, %s", path, abs)
	}
	if in, err := filepath.Rel(w.pgdata, abs); err == nil && in != ".." && !strings.HasPrefix(in, "../") {
		return fail(CodeLinkDestination, "", "link %s points into the data directory, to %s", path, abs)
	}
	u, g := w.owner(st)
	w.m.Links = append(w.m.Links, repo.Link{Name: name, Destination: dst, Group: g, User: u})
	if parent == repo.TargetData+"/pg_tblspc" {
		return w.space(name, path, dst)
	}
	to, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("follow link: %w", err)
	}
	if to.IsDir() {
		w.m.Targets = append(w.m.Targets, repo.Target{Name: name, Path: dst, Link: true})
		return w.path(parent, name, path, to)
	}
	w.m.Targets = append(w.m.Targets, repo.Target{Name: name, Path: filepath.Dir(dst), File: filepath.Base(dst), Link: true})
	w.file(parent, name, inDB, to)
	return nil
}

// space lists a tablespace: of its directory only what belongs to this version
// of PostgreSQL, under pg_tblspc/<oid>.
func (w *walker) space(name, path, dst string) error {
	oid := filepath.Base(name)
	spaceName, ok := w.spaces[oid]
	if !ok {
		return fail(CodeTablespaceMap, "Was a tablespace created or dropped during the backup? Run it again.",
			"%s is no tablespace that the database knows", path)
	}
	target := repo.TargetTblsp + "/" + oid
	w.m.Targets = append(w.m.Targets, repo.Target{Name: target, Path: dst, TablespaceID: oid, TablespaceName: spaceName, Link: true})
	d := w.m.PathDefault
	if !slices.ContainsFunc(w.m.Paths, func(p repo.Path) bool { return p.Name == repo.TargetTblsp }) {
		// Restores ignore these; they belong to the form.
		w.m.Paths = append(w.m.Paths, repo.Path{Name: repo.TargetTblsp, Group: d.Group, User: d.User, Mode: d.Mode})
	}
	w.m.Paths = append(w.m.Paths, repo.Path{Name: target, Group: d.Group, User: d.User, Mode: d.Mode})
	st, err := os.Stat(filepath.Join(path, w.tablespace))
	if err != nil {
		return fmt.Errorf("list tablespace %s: %w", spaceName, err)
	}
	return w.path(target, target+"/"+w.tablespace, filepath.Join(path, w.tablespace), st)
}

// dropUnlogged leaves of unlogged relations only the init fork, from which
// recovery makes the others.
func (w *walker) dropUnlogged() {
	unlogged := map[string]bool{}
	for i := range w.m.Files {
		if rel, ok := strings.CutSuffix(w.m.Files[i].Name, "_init"); ok {
			unlogged[rel] = true
		}
	}
	if len(unlogged) == 0 {
		return
	}
	w.m.Files = slices.DeleteFunc(w.m.Files, func(f repo.File) bool {
		m := relationRE.FindStringSubmatch(f.Name)
		return m != nil && unlogged[m[1]]
	})
}

// physical maps a manifest's name of a file in the running cluster to its path.
func physical(pgdata, name string) string {
	if rest, ok := strings.CutPrefix(name, repo.TargetData+"/"); ok {
		return filepath.Join(pgdata, rest)
	}
	return filepath.Join(pgdata, name)
}
