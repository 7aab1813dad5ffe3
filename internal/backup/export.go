package backup

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"manada/internal/blob"
	"manada/internal/durable"
	"manada/internal/repo"
)

// ExportOptions say which backup to take out, and where to.
type ExportOptions struct {
	Storage  blob.Storage
	Stanza   string
	Set      string // a label; "" or "latest" is the newest
	Dir      string // the export becomes Dir/LABEL
	Workers  int    // files copied at once; 0 means 2
	Progress func(Progress)
}

// ExportResult is what was exported.
type ExportResult struct {
	Label   string
	Path    string   // Dir/LABEL
	Backups []string // with those that it builds on, oldest first
	WAL     int      // files of the archive
	Bytes   int64
}

// export is one export on its way.
type export struct {
	ExportOptions
	info  *repo.BackupInfo
	arch  *repo.ArchiveInfo
	label string
	set   []string // labels, ascending
	files []blob.Info
	wal   int
	bytes int64
	track *tracker
}

// Export makes a folder of one backup that is a repository of its own: the
// backup, those that it builds on, the WAL from the start to the stop of each and
// the info files that say so. `pgbackrest --repo1-path=DIR/LABEL --type=immediate
// restore` needs nothing else.
//
// The folder is made beside, under a name that begins with a dot, is read back,
// and gets its own name when all of it is durable.
func Export(ctx context.Context, o ExportOptions) (*ExportResult, error) {
	if o.Workers <= 0 {
		o.Workers = 2
	}
	x := &export{ExportOptions: o, track: &tracker{report: o.Progress}}
	res, err := x.run(ctx)
	if err != nil {
		return nil, fmt.Errorf("export backup of stanza %s to %s: %w", o.Stanza, o.Dir, err)
	}
	x.track.phase(PhaseDone)
	return res, nil
}

func (x *export) run(ctx context.Context) (*ExportResult, error) {
	x.track.phase(PhasePrepare)
	if err := x.choose(ctx); err != nil {
		return nil, err
	}
	target := filepath.Join(x.Dir, x.label)
	if _, err := os.Lstat(target); !errors.Is(err, fs.ErrNotExist) {
		if err != nil {
			return nil, err
		}
		return nil, fail(CodePathNotEmpty, "Choose another directory, or remove it if it is not needed any more.", "%s exists already", target)
	}
	if err := x.list(ctx); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(x.Dir, 0o750); err != nil {
		return nil, err
	}
	if err := x.room(); err != nil {
		return nil, err
	}
	tmp, release, err := x.scratch()
	if err != nil {
		return nil, err
	}
	defer release()
	if err := x.fill(ctx, tmp); err != nil {
		return nil, errors.Join(err, os.RemoveAll(tmp))
	}
	if err := durable.RenameNew(tmp, target); err != nil {
		return nil, errors.Join(fmt.Errorf("rename %s to %s: %w", tmp, target, err), os.RemoveAll(tmp))
	}
	return &ExportResult{Label: x.label, Path: target, Backups: x.set, WAL: x.wal, Bytes: x.bytes}, nil
}

// choose finds the backup and all that it builds on.
func (x *export) choose(ctx context.Context) error {
	var err error
	if x.info, x.arch, err = loadStanza(ctx, x.Storage, x.Stanza); err != nil {
		return err
	}
	if len(x.info.Backups) == 0 {
		return fail(CodeBackupSet, "Make a backup first.", "stanza %q has no backups", x.Stanza)
	}
	if x.label = x.Set; x.label == "" || x.label == "latest" {
		x.label = x.info.Backups[len(x.info.Backups)-1].Label
	}
	want := []string{x.label}
	for len(want) > 0 {
		l := want[0]
		want = want[1:]
		if l == "" || slices.Contains(x.set, l) {
			continue
		}
		e := x.info.Find(l)
		if e == nil {
			return fail(CodeBackupSet, "Run info to see which there are.", "backup set %s does not exist", l)
		}
		x.set = append(x.set, l)
		want = append(append(want, e.Prior), e.Reference...)
	}
	slices.Sort(x.set)
	return nil
}

// list finds what to copy, with its size.
func (x *export) list(ctx context.Context) error {
	for _, l := range x.set {
		dir := repo.BackupPath(x.Stanza, l)
		es, err := x.Storage.List(ctx, dir, true)
		if err != nil {
			return err
		}
		for _, e := range es {
			x.add(dir+"/"+e.Name, e.Size)
		}
		if err := x.listWAL(ctx, x.info.Find(l)); err != nil {
			return err
		}
	}
	return nil
}

func (x *export) add(name string, size int64) {
	if !slices.ContainsFunc(x.files, func(f blob.Info) bool { return f.Name == name }) {
		x.files = append(x.files, blob.Info{Name: name, Size: size})
		x.bytes += size
	}
}

// listWAL takes what makes a backup consistent: its segments, the timelines'
// histories and its own record in the archive.
func (x *export) listWAL(ctx context.Context, e *repo.BackupEntry) error {
	if e.ArchiveStart == "" {
		return nil // made of a stopped cluster
	}
	i := slices.IndexFunc(x.arch.History, func(d repo.DB) bool { return d.ID == e.DBID })
	if i < 0 {
		return fail(CodeFormat, "", "archive.info does not know the cluster of backup %s", e.Label)
	}
	root := repo.ArchivePath(x.Stanza, x.arch.History[i].ArchiveID())
	es, err := x.Storage.List(ctx, root, false)
	if err != nil {
		return err
	}
	for _, h := range es {
		if repo.KindOfWAL(h.Name) == repo.WALHistory && h.Name[:8] <= e.ArchiveStop[:8] {
			x.addWAL(root+"/"+h.Name, h.Size)
		}
	}
	have := map[string]bool{}
	for d := range dirsBetween(e.ArchiveStart, e.ArchiveStop) {
		es, err := x.Storage.List(ctx, root+"/"+d, false)
		if err != nil {
			return err
		}
		for _, f := range es {
			w, ok := repo.ParseStoredWAL(f.Name)
			switch {
			case ok && w.Name >= e.ArchiveStart && w.Name <= e.ArchiveStop && repo.KindOfWAL(w.Name) == repo.WALSegment:
				have[w.Name] = true
				x.addWAL(root+"/"+d+"/"+f.Name, f.Size)
			case repo.KindOfWAL(f.Name) == repo.WALBackup && strings.HasPrefix(f.Name, e.ArchiveStart):
				x.addWAL(root+"/"+d+"/"+f.Name, f.Size)
			}
		}
	}
	return x.complete(ctx, root, e, have)
}

func (x *export) addWAL(name string, size int64) {
	n := len(x.files)
	x.add(name, size)
	x.wal += len(x.files) - n
}

// dirsBetween are the directories of the archive from one segment to another of
// the same timeline.
func dirsBetween(start, stop string) func(func(string) bool) {
	return func(yield func(string) bool) {
		var from, to uint32
		fmt.Sscanf(start[8:16], "%08X", &from)
		fmt.Sscanf(stop[8:16], "%08X", &to)
		for n := from; n <= to; n++ {
			if !yield(fmt.Sprintf("%s%08X", start[:8], n)) {
				return
			}
		}
	}
}

// complete makes sure that no segment is missing.
func (x *export) complete(ctx context.Context, root string, e *repo.BackupEntry, have map[string]bool) error {
	missing := func(seg string) error {
		return fail(CodeFileMissing, "Export another backup, or make a new one.", "backup %s needs WAL segment %s, and the archive does not have it", e.Label, seg)
	}
	if !have[e.ArchiveStart] {
		return missing(e.ArchiveStart)
	}
	size, err := x.segmentSize(ctx, root, e.ArchiveStart)
	if err != nil {
		return err
	}
	need, err := repo.Segments(e.ArchiveStart, e.ArchiveStop, size)
	if err != nil {
		return err
	}
	for _, seg := range need {
		if !have[seg] {
			return missing(seg)
		}
	}
	return nil
}

// segmentSize is in the header of each segment.
func (x *export) segmentSize(ctx context.Context, root, segment string) (uint64, error) {
	dir := root + "/" + repo.WALDir(segment)
	have, err := findWAL(ctx, x.Storage, dir, segment)
	if err != nil || len(have) == 0 {
		return 0, errors.Join(err, ErrNotFound)
	}
	r, err := x.Storage.Open(ctx, dir+"/"+have[0].String(), 0, -1)
	if err != nil {
		return 0, err
	}
	defer r.Close()
	z, err := repo.NewDecompressor(have[0].Compress, r, false)
	if err != nil {
		return 0, err
	}
	defer z.Close()
	head := make([]byte, 40)
	if _, err := io.ReadFull(z, head); err != nil {
		return 0, fmt.Errorf("read %s: %w", segment, err)
	}
	return uint64(binary.LittleEndian.Uint32(head[32:])), nil
}

// room compares what there is to be written with the space that is left.
func (x *export) room() error {
	var st unix.Statfs_t
	if err := unix.Statfs(x.Dir, &st); err != nil {
		return fmt.Errorf("look at the space in %s: %w", x.Dir, err)
	}
	free := int64(st.Bavail) * st.Bsize
	need := x.bytes + x.bytes/50 + int64(len(x.files))*4096 // blocks that are not full
	if need > free {
		return fail(CodeFileWrite, "Choose another file system, or make room.", "%s has %s left, and the export takes %s", x.Dir, sizeText(free), sizeText(need))
	}
	return nil
}

// scratch makes the folder beside the target, and removes what exports that are
// gone have left.
func (x *export) scratch() (dir string, release func(), err error) {
	left, err := filepath.Glob(filepath.Join(x.Dir, "."+x.label+".partial-*"))
	if err != nil {
		return "", nil, err
	}
	for _, l := range left {
		if f, err := hold(l); err == nil {
			err = os.RemoveAll(l)
			f.Close()
			if err != nil {
				return "", nil, fmt.Errorf("remove what an earlier export has left: %w", err)
			}
		}
	}
	if dir, err = os.MkdirTemp(x.Dir, "."+x.label+".partial-*"); err != nil {
		return "", nil, err
	}
	f, err := hold(dir)
	if err == nil {
		err = os.Chmod(dir, 0o750)
	}
	if err != nil {
		return "", nil, err
	}
	return dir, func() { f.Close() }, nil
}

// hold marks a folder as one that somebody works in.
func hold(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// fill copies everything into the folder, describes it, and reads it back.
func (x *export) fill(ctx context.Context, dir string) error {
	dst, err := blob.NewPosix(dir, blob.PosixOptions{})
	if err != nil {
		return err
	}
	x.track.update(func(p *Progress) {
		p.Phase, p.BytesTotal, p.FilesTotal = PhaseCopy, x.bytes, len(x.files)
	})
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(x.Workers)
	for _, f := range x.files {
		g.Go(func() error { return x.copy(gctx, dst, f) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	x.track.phase(PhaseFinish)
	if err := x.describe(ctx, dst); err != nil {
		return err
	}
	v, err := Verify(ctx, VerifyOptions{Storage: dst, Stanza: x.Stanza, Workers: x.Workers})
	if err != nil {
		return err
	}
	if len(v.Problems) > 0 {
		return fail(CodeChecksum, "Was the backup expired meanwhile, or is the repository damaged? Try again, or another backup.", "what was copied is not whole: %s (and %d more)", v.Problems[0], len(v.Problems)-1)
	}
	return nil
}

func (x *export) copy(ctx context.Context, dst blob.Storage, f blob.Info) error {
	r, err := x.Storage.Open(ctx, f.Name, 0, -1)
	if err != nil {
		return err
	}
	defer r.Close()
	if err := dst.Put(ctx, f.Name, r, blob.PutOptions{}); err != nil {
		return err
	}
	x.track.update(func(p *Progress) { p.BytesDone += f.Size; p.FilesDone++; p.File = f.Name })
	return nil
}

// describe writes the info files of what is there.
func (x *export) describe(ctx context.Context, dst blob.Storage) error {
	info := *x.info
	info.Backups = slices.DeleteFunc(slices.Clone(x.info.Backups), func(e repo.BackupEntry) bool { return !slices.Contains(x.set, e.Label) })
	if err := repo.SaveArchiveInfo(ctx, dst, x.Stanza, x.arch); err != nil {
		return err
	}
	if err := dst.Link(ctx, repo.BackupPath(x.Stanza, repo.LatestLink), x.label); err != nil {
		return err
	}
	return repo.SaveBackupInfo(ctx, dst, x.Stanza, &info)
}
