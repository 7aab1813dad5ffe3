package keeper

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"manada/internal/backup"
	"manada/internal/blob"
	"manada/internal/cluster"
	"manada/internal/repo"
)

const (
	// writerPatience is how long WAL waits for word that its sender leads, and has
	// written so far: both are heard a moment after they are so.
	writerPatience = 5 * time.Second
	writerPause    = 100 * time.Millisecond
	// maxText bounds history files and the history of backups, in bytes.
	maxText = 1 << 20
)

// Writer is who writes the WAL of the herd, as the repository host itself knows.
type Writer struct {
	Node     string           // leads the current epoch
	Timeline cluster.Timeline // of that epoch, the newest
	End      cluster.LSN      // how far its WAL goes; 0: not known
}

// refuses says why a file of WAL cannot be from a node; size is that of a
// segment in bytes, 0 for other files.
func (w Writer) refuses(node, name string, size int64) string {
	t, _ := strconv.ParseUint(name[:8], 16, 32)
	tl := cluster.Timeline(t)
	if node != w.Node {
		return fmt.Sprintf("%s does not lead the herd, %s does", node, w.Node)
	}
	if tl > w.Timeline {
		return fmt.Sprintf("%s: the herd writes timeline %d", name, w.Timeline)
	}
	if size == 0 || tl < w.Timeline || w.End == 0 {
		return ""
	}
	if _, n, ok := cluster.ParseSegment(name[:24], uint64(size)); !ok || cluster.LSN(n*uint64(size)) >= w.End {
		return fmt.Sprintf("%s: %s has written WAL up to %s only", name, node, w.End)
	}
	return ""
}

// mayWrite lets in what the writer of WAL can have: nobody but it sends WAL, and
// it none that is still to come.
func (g *Guard) mayWrite(ctx context.Context, name string, size int64) error {
	if g.writer == nil {
		return nil
	}
	for end := time.Now().Add(g.patience); ; {
		w, ok := g.writer(ctx)
		if !ok {
			return nil
		}
		why := w.refuses(callerOf(ctx), name, size)
		if why == "" {
			return nil
		}
		if time.Now().After(end) {
			return refused("%s", why)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(writerPause):
		}
	}
}

// mayArchive lets in WAL of the stanza's present cluster from who writes it, and
// of a segment only what its name says. Of a segment there is one file: a second
// one with another content would keep everybody from restoring it.
func (g *Guard) mayArchive(ctx context.Context, part []string, r io.Reader) (in io.Reader, done func(), err error) {
	info, err := repo.LoadArchiveInfo(ctx, g.Storage, g.stanza)
	if err != nil {
		return nil, nil, err
	}
	db, err := info.DB()
	if err != nil {
		return nil, nil, err
	}
	file, none := part[len(part)-1], func() {}
	if part[2] != db.ArchiveID() {
		return nil, nil, refused("WAL goes to %s, not to %s", db.ArchiveID(), part[2])
	}
	kind := repo.KindOfWAL(file)
	inPlace := len(part) == 5 && repo.IsWALDir(part[3]) && strings.HasPrefix(file, part[3])
	if len(part) == 4 && kind == repo.WALHistory || inPlace && kind == repo.WALBackup {
		return &short{r: r, left: maxText, name: file}, none, g.mayWrite(ctx, file, 0)
	}
	if !inPlace {
		return nil, nil, refused("%s is not the place of WAL", strings.Join(part, "/"))
	}
	w, ok := repo.ParseStoredWAL(file)
	if !ok {
		return nil, nil, refused("%s is not the name of stored WAL", file)
	}
	if err := g.mayWrite(ctx, w.Name, 0); err != nil {
		return nil, nil, err
	}
	release, err := g.onlyOne(ctx, strings.Join(part[:4], "/"), w.Name)
	if err != nil {
		return nil, nil, err
	}
	c := checkWAL(r, func(content io.Reader) error { return g.readWAL(ctx, w, db, content) })
	return c, func() { c.stop(); release() }, nil
}

// readWAL reads a segment as it was stored and says what is not as its name says.
func (g *Guard) readWAL(ctx context.Context, w repo.StoredWAL, db repo.DB, stored io.Reader) error {
	z, err := repo.NewDecompressor(w.Compress, stored, false)
	if err != nil {
		return refused("%s is not compressed as its name says: %v", w, err)
	}
	defer z.Close()
	head := make([]byte, backup.SegmentHeader)
	if _, err := io.ReadFull(z, head); err != nil {
		return refused("%s is no WAL: %v", w, err)
	}
	size, err := backup.CheckSegment(w.Name, head, db)
	if err != nil {
		return refused("%s is not that segment: %v", w.Name, err)
	}
	if err := g.mayWrite(ctx, w.Name, size); err != nil {
		return err
	}
	h := sha1.New()
	h.Write(head)
	n, err := io.Copy(h, io.LimitReader(z, size-int64(len(head))+1)) // to its very end, as a fetch does
	if err != nil {
		return refused("%s is not whole: %v", w.Name, err)
	}
	if n += int64(len(head)); n != size {
		return refused("%s has not the %d bytes that it says", w.Name, size)
	}
	if sum := hex.EncodeToString(h.Sum(nil)); sum != w.SHA1 {
		return refused("%s has the checksum %s", w, sum)
	}
	if n, _ := io.Copy(io.Discard, stored); n > 0 {
		return refused("%s goes on for %d bytes after its end", w, n)
	}
	return nil
}

// checked is a reader whose last read fails when what was read is not right.
type checked struct {
	r       io.Reader
	pipe    *io.PipeWriter
	verdict chan error
}

// checkWAL has a stream read by somebody else, too, while it is read.
func checkWAL(r io.Reader, read func(io.Reader) error) *checked {
	out, in := io.Pipe()
	c := &checked{r: r, pipe: in, verdict: make(chan error, 1)}
	go func() {
		err := read(out)
		out.CloseWithError(io.ErrClosedPipe) // nobody reads on
		c.verdict <- err
	}()
	return c
}

// Read implements io.Reader.
func (c *checked) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if n > 0 {
		if _, bad := c.pipe.Write(p[:n]); bad != nil {
			return 0, c.ended(io.ErrUnexpectedEOF)
		}
	}
	if err == io.EOF {
		c.pipe.Close()
		return n, c.ended(io.EOF)
	}
	return n, err
}

// ended is the verdict; right is the error where there is no fault.
func (c *checked) ended(right error) error {
	err := <-c.verdict
	c.verdict <- err
	if err != nil {
		return err
	}
	return right
}

// stop ends the reading of what was given up.
func (c *checked) stop() {
	c.pipe.CloseWithError(io.ErrUnexpectedEOF)
	<-c.verdict
}

// short is a reader that refuses what is too long.
type short struct {
	r    io.Reader
	left int
	name string
}

// Read implements io.Reader.
func (s *short) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if s.left -= n; s.left < 0 {
		return 0, refused("%s is longer than %d bytes", s.name, maxText)
	}
	return n, err
}

// onlyOne reserves the name of a segment that is not stored yet.
func (g *Guard) onlyOne(ctx context.Context, dir, segment string) (release func(), err error) {
	key := dir + "/" + segment
	g.mu.Lock()
	_, busy := g.being[key]
	if !busy {
		g.being[key] = struct{}{}
	}
	g.mu.Unlock()
	if busy {
		return nil, fmt.Errorf("WAL segment %s is being stored: %w", segment, blob.ErrExist)
	}
	release = func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.being, key)
	}
	es, err := g.Storage.List(ctx, dir, false)
	for _, e := range es {
		if w, ok := repo.ParseStoredWAL(e.Name); ok && w.Name == segment {
			err = fmt.Errorf("WAL segment %s is stored already: %w", segment, blob.ErrExist)
		}
	}
	if err != nil {
		release()
		return nil, err
	}
	return release, nil
}
