package backup

import (
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"manada/internal/blob"
	"manada/internal/repo"
)

const (
	chunkSize   = 1 << 20
	bundleLimit = 2 << 20  // files up to here go into bundles
	bundleSize  = 20 << 20 // a bundle is full from here
)

// controlName is pg_control's name in a manifest.
const controlName = repo.TargetData + "/global/pg_control"

// Why a large file was not stored although it was streamed; they abort a Put,
// which leaves nothing behind.
var (
	errUnchanged = errors.New("unchanged since the prior backup")
	errEmptied   = errors.New("emptied while it was copied")
)

// item is a file that has to be copied, or at least looked at.
type item struct {
	file  *repo.File // in the manifest; what is known of it is written back here
	prior *repo.File // the same file in the prior backup, when its size is equal; may be used instead
	delta bool       // probably unchanged: hash before anything else
	gone  bool       // removed by PostgreSQL since the directory was listed
}

// job is what a worker takes at once: one large file, or a bundle of small ones.
type job struct {
	bundle uint64 // 0 for a file of its own
	items  []*item
}

// planJobs puts large files first, biggest leading, so that no worker ends long
// after the others; small ones are bundled with files of their age, which tend
// to expire together.
func planJobs(items []*item) []job {
	var large, small []*item
	for _, it := range items {
		if it.file.Size > bundleLimit {
			large = append(large, it)
		} else {
			small = append(small, it)
		}
	}
	sortItems(large, func(a, b *item) bool { return a.file.Size > b.file.Size })
	sortItems(small, func(a, b *item) bool { return a.file.Timestamp > b.file.Timestamp })
	var jobs []job
	for _, it := range large {
		jobs = append(jobs, job{items: []*item{it}})
	}
	var b job
	var size int64
	id := uint64(1)
	for _, it := range small {
		b.items = append(b.items, it)
		if size += it.file.Size; size >= bundleSize {
			b.bundle = id
			jobs = append(jobs, b)
			b, size, id = job{}, 0, id+1
		}
	}
	if len(b.items) > 0 {
		b.bundle = id
		jobs = append(jobs, b)
	}
	return jobs
}

// copier copies files into the repository.
type copier struct {
	storage blob.Storage
	stanza  string
	label   string
	pgdata  string
	comp    repo.Compression
	level   int
	raw     bool
	track   *tracker
	notes   *notices
}

// worker has what one goroutine reuses from file to file.
type worker struct {
	*copier
	z       repo.Compressor
	chunk   []byte
	raw     hash.Hash    // of the file
	stored  hash.Hash    // of what goes into the repository
	out     bytes.Buffer // compressed, not yet taken
	bundleB bytes.Buffer
}

// run does the jobs on n workers.
func (c *copier) run(ctx context.Context, jobs []job, n int) error {
	return share(ctx, jobs, n, func() (func(context.Context, job) error, error) {
		z, err := repo.NewCompressor(c.comp, c.level, c.raw)
		if err != nil {
			return nil, err
		}
		return (&worker{copier: c, z: z, chunk: make([]byte, chunkSize), raw: sha1.New(), stored: sha1.New()}).do, nil
	})
}

// share does the jobs in their order on up to n workers, each made by hire, until
// the first error.
func share[J any](ctx context.Context, jobs []J, n int, hire func() (func(context.Context, J) error, error)) error {
	g, ctx := errgroup.WithContext(ctx)
	var next atomic.Int64
	for range min(n, len(jobs)) {
		g.Go(func() error {
			do, err := hire()
			if err != nil {
				return err
			}
			for i := next.Add(1) - 1; i < int64(len(jobs)); i = next.Add(1) - 1 {
				if err := do(ctx, jobs[i]); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

func (w *worker) do(ctx context.Context, j job) error {
	if j.bundle == 0 {
		it := j.items[0]
		if err := w.large(ctx, it); err != nil {
			return fmt.Errorf("copy %s: %w", it.file.Name, err)
		}
		return nil
	}
	w.bundleB.Reset()
	for _, it := range j.items {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := w.small(ctx, it, j.bundle); err != nil {
			return fmt.Errorf("copy %s: %w", it.file.Name, err)
		}
		w.done(it)
	}
	if w.bundleB.Len() == 0 {
		return nil
	}
	name := repo.BundlePath(w.stanza, w.label, j.bundle)
	if err := w.storage.Put(ctx, name, bytes.NewReader(w.bundleB.Bytes()), blob.PutOptions{}); err != nil {
		return fmt.Errorf("store bundle %d: %w", j.bundle, err)
	}
	return nil
}

func (w *worker) done(it *item) {
	w.track.update(func(p *Progress) {
		p.FilesDone++
		p.BytesDone += it.file.SizeOriginal
		p.File = it.file.Name
	})
}

// open opens a file of the cluster; nil when PostgreSQL has removed it since.
func (w *worker) open(it *item) (*os.File, error) {
	f, err := os.Open(physical(w.pgdata, it.file.Name))
	if errors.Is(err, fs.ErrNotExist) {
		it.gone = true
		return nil, nil
	}
	return f, err
}

// small adds a file to the bundle.
func (w *worker) small(ctx context.Context, it *item, bundle uint64) error {
	if it.file.Name == controlName {
		return w.smallControl(ctx, it, bundle)
	}
	f, err := w.open(it)
	if err != nil || f == nil {
		return err
	}
	defer f.Close()
	// Never more than there was when the backup began: what came later is in WAL.
	if int64(len(w.chunk)) < it.file.SizeOriginal {
		w.chunk = make([]byte, bundleLimit)
	}
	n, err := io.ReadFull(f, w.chunk[:it.file.SizeOriginal])
	if err != nil && err != io.ErrUnexpectedEOF && err != io.EOF {
		return err
	}
	return w.smallBytes(it, w.chunk[:n], bundle, f)
}

// smallControl copies pg_control, which may be half-written at any moment.
func (w *worker) smallControl(ctx context.Context, it *item, bundle uint64) error {
	_, b, err := readControl(ctx, w.pgdata)
	if err != nil {
		return err
	}
	return w.smallBytes(it, b, bundle, nil)
}

func (w *worker) smallBytes(it *item, b []byte, bundle uint64, again io.ReaderAt) error {
	sum := sha1.Sum(b)
	sha := hex.EncodeToString(sum[:])
	if it.unchanged(int64(len(b)), sha) {
		it.useInstead()
		return nil
	}
	f := it.file
	it.reset(int64(len(b)))
	if len(b) == 0 {
		return nil
	}
	f.SHA1 = sha
	if f.ChecksumPage {
		c := newPageChecker(f.Name, again)
		c.write(b)
		w.pages(f, c)
	}
	at := w.bundleB.Len()
	w.z.Reset(&w.bundleB)
	if _, err := w.z.Write(b); err != nil {
		return err
	}
	if err := w.z.Close(); err != nil {
		return err
	}
	stored := w.bundleB.Bytes()[at:]
	f.BundleID, f.BundleOffset, f.SizeRepo = bundle, int64(at), int64(len(stored))
	if w.comp != repo.None {
		sum = sha1.Sum(stored)
		f.RepoSHA1 = hex.EncodeToString(sum[:])
	}
	return nil
}

func (w *worker) pages(f *repo.File, c *pageChecker) {
	if c.ok() {
		return
	}
	f.ChecksumPageError, f.PageErrors = true, c.errors()
	w.notes.add(fmt.Sprintf("invalid page checksum in %s: pages %s", f.Name, f.PageErrors))
}

func (it *item) unchanged(size int64, sha string) bool {
	return it.prior != nil && it.prior.Size == size && it.prior.Hash() == sha
}

// useInstead makes the file a reference to the prior backup's.
func (it *item) useInstead() {
	ts, orig, pages := it.file.Timestamp, it.file.SizeOriginal, it.file.ChecksumPage
	group, user, mode := it.file.Group, it.file.User, it.file.Mode
	*it.file = *it.prior
	it.file.Timestamp, it.file.SizeOriginal = ts, orig
	it.file.Group, it.file.User, it.file.Mode = group, user, mode
	if !pages { // no file of pages, whatever the prior backup took it for
		it.file.ChecksumPage, it.file.ChecksumPageError, it.file.PageErrors = false, false, nil
	}
}

// reset makes the file one that this backup stores.
func (it *item) reset(size int64) {
	f := it.file
	*f = repo.File{Name: f.Name, Size: size, SizeOriginal: f.SizeOriginal, Timestamp: f.Timestamp,
		ChecksumPage: f.ChecksumPage, Group: f.Group, User: f.User, Mode: f.Mode}
}

// large stores a file of its own.
func (w *worker) large(ctx context.Context, it *item) error {
	f, err := w.open(it)
	if err != nil {
		return err
	}
	if f == nil {
		w.done(it)
		return nil
	}
	defer f.Close()
	unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_SEQUENTIAL)
	if it.delta && it.prior != nil {
		same, err := w.hashFirst(ctx, f, it)
		if err != nil || same {
			return err
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return err
		}
	}
	st := w.stream(ctx, f, it)
	err = w.storage.Put(ctx, repo.FilePath(w.stanza, w.label, it.file.Name, w.comp), st, blob.PutOptions{})
	switch {
	case errors.Is(err, errUnchanged):
		it.useInstead()
	case errors.Is(err, errEmptied):
		it.reset(0)
	case err != nil:
		return err
	default:
		it.reset(st.size)
		it.file.SHA1, it.file.SizeRepo = st.sha, st.sizeRepo
		if w.comp != repo.None {
			it.file.RepoSHA1 = st.shaRepo
		}
		if st.pages != nil {
			w.pages(it.file, st.pages)
		}
	}
	w.finishLarge(it, st.counted)
	return nil
}

func (w *worker) finishLarge(it *item, counted int64) {
	w.track.update(func(p *Progress) {
		p.FilesDone++
		p.BytesDone += it.file.SizeOriginal - counted
		p.File = it.file.Name
	})
}

// hashFirst says whether a file that is probably unchanged is.
func (w *worker) hashFirst(ctx context.Context, f *os.File, it *item) (bool, error) {
	w.raw.Reset()
	left := it.file.SizeOriginal
	var size int64
	for left > 0 {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		n, err := f.Read(w.chunk[:min(left, int64(len(w.chunk)))])
		w.raw.Write(w.chunk[:n])
		left -= int64(n)
		size += int64(n)
		if err == io.EOF {
			break
		}
		if err != nil {
			return false, err
		}
	}
	if !it.unchanged(size, hex.EncodeToString(w.raw.Sum(nil))) {
		return false, nil
	}
	it.useInstead()
	w.finishLarge(it, 0)
	return true, nil
}

// stream reads a file once and gives what goes into the repository, hashing both
// and looking at the pages on the way. It ends with errUnchanged or errEmptied
// instead of io.EOF when nothing should be stored.
type stream struct {
	w     *worker
	ctx   context.Context
	f     *os.File
	it    *item
	left  int64
	ended bool
	pages *pageChecker

	size, sizeRepo int64
	sha, shaRepo   string
	counted        int64 // bytes reported as progress
}

func (w *worker) stream(ctx context.Context, f *os.File, it *item) *stream {
	w.raw.Reset()
	w.stored.Reset()
	w.out.Reset()
	w.z.Reset(&w.out)
	s := &stream{w: w, ctx: ctx, f: f, it: it, left: it.file.SizeOriginal}
	if it.file.ChecksumPage {
		s.pages = newPageChecker(it.file.Name, f)
	}
	return s
}

func (s *stream) Read(p []byte) (int, error) {
	for s.w.out.Len() == 0 {
		if s.ended {
			return 0, io.EOF
		}
		if err := s.next(); err != nil {
			return 0, err
		}
	}
	n, _ := s.w.out.Read(p)
	if s.w.comp != repo.None {
		s.w.stored.Write(p[:n])
	}
	s.sizeRepo += int64(n)
	if s.ended && s.w.out.Len() == 0 {
		s.shaRepo = hex.EncodeToString(s.w.stored.Sum(nil))
	}
	return n, nil
}

// next takes one chunk of the file.
func (s *stream) next() error {
	if err := s.ctx.Err(); err != nil {
		return err
	}
	w := s.w
	n, err := io.ReadFull(s.f, w.chunk[:min(s.left, chunkSize)])
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return err
	}
	b := w.chunk[:n]
	s.left -= int64(n)
	s.size += int64(n)
	w.raw.Write(b)
	if s.pages != nil {
		s.pages.write(b)
	}
	if _, err := w.z.Write(b); err != nil {
		return err
	}
	s.counted += int64(n)
	w.track.update(func(p *Progress) {
		p.BytesDone += int64(n)
		p.File = s.it.file.Name
	})
	if err == nil && s.left > 0 {
		return nil
	}
	s.ended = true
	s.sha = hex.EncodeToString(w.raw.Sum(nil))
	switch {
	case s.it.unchanged(s.size, s.sha):
		return errUnchanged
	case s.size == 0:
		return errEmptied
	}
	return w.z.Close()
}
