package postgres

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"

	"manada/internal/cluster"
)

// The format of WAL pages and records (access/xlog_internal.h, xlogrecord.h),
// the same from PostgreSQL 15 to 18.
const (
	walShortHeader   = 24
	walLongHeader    = 40
	walRecordHeader  = 24
	walContRecord    = 0x01
	walLongPage      = 0x02
	walOverwriteCont = 0x08
	walMaxRecord     = 1 << 30
)

// errNoRecord: here is no (complete, intact) record.
var errNoRecord = errors.New("no record")

// walReader finds where the WAL in pg_wal ends, record by record with their
// checksums, as recovery would. It reads files only: no process is needed.
type walReader struct {
	dir     string
	segSize uint64
	page    uint64
	tli     cluster.Timeline // of the file in use
	seg     uint64           // number of the segment in use
	f       *os.File
	files   map[uint64][]cluster.Timeline // by segment, newest timeline first
	buf     []byte
	bufAt   cluster.LSN // position of the page in buf
	bufTLI  cluster.Timeline
	bufOK   bool
}

func newWALReader(dataDir string, c *Control) (*walReader, error) {
	r := &walReader{dir: filepath.Join(dataDir, "pg_wal"), segSize: c.SegmentSize, page: uint64(c.WALBlockSize),
		files: map[uint64][]cluster.Timeline{}}
	if r.segSize == 0 || r.page == 0 {
		return nil, errors.New("read WAL: control file gives no segment size")
	}
	r.buf = make([]byte, r.page)
	e, err := os.ReadDir(r.dir)
	if err != nil {
		return nil, fmt.Errorf("read WAL: %w", err)
	}
	for _, f := range e {
		if t, seg, ok := cluster.ParseSegment(f.Name(), r.segSize); ok {
			r.files[seg] = append(r.files[seg], t)
		}
	}
	for _, t := range r.files {
		slices.Sort(t)
		slices.Reverse(t)
	}
	return r, nil
}

func (r *walReader) close() {
	if r.f != nil {
		r.f.Close()
		r.f = nil
	}
}

// loadPage reads the page that begins at at, of the segment's file of timeline t,
// and checks its header.
func (r *walReader) loadPage(t cluster.Timeline, at cluster.LSN) error {
	if r.bufOK && r.bufAt == at && r.bufTLI == t {
		return nil
	}
	seg := uint64(at) / r.segSize
	if r.f == nil || r.seg != seg || r.tli != t {
		r.close()
		f, err := os.Open(filepath.Join(r.dir, t.Segment(at, r.segSize)))
		if errors.Is(err, os.ErrNotExist) {
			return errNoRecord
		}
		if err != nil {
			return err
		}
		r.f, r.seg, r.tli = f, seg, t
	}
	r.bufOK = false
	if _, err := r.f.ReadAt(r.buf, int64(uint64(at)%r.segSize)); err != nil {
		if errors.Is(err, io.EOF) {
			return errNoRecord
		}
		return err
	}
	le := binary.LittleEndian
	// A recycled segment holds old pages under a new name: their address betrays them.
	if le.Uint16(r.buf)&0xFF00 != 0xD100 || cluster.LSN(le.Uint64(r.buf[8:])) != at {
		return errNoRecord
	}
	r.bufAt, r.bufTLI, r.bufOK = at, t, true
	return nil
}

func (r *walReader) headerSize() uint64 {
	if binary.LittleEndian.Uint16(r.buf[2:])&walLongPage != 0 {
		return walLongHeader
	}
	return walShortHeader
}

// timelines are the files in which the segment of at exists, newest first.
func (r *walReader) timelines(at cluster.LSN) []cluster.Timeline {
	return r.files[uint64(at)/r.segSize]
}

// record is what one intact record tells of itself.
type record struct {
	start, next, prev cluster.LSN // next: where the one behind it begins, at the earliest
	tli               cluster.Timeline
	isSwitch          bool
}

// firstOn is where the first record begins that begins on the page: behind the
// end of one that began before. errNoRecord when none does.
func (r *walReader) firstOn(t cluster.Timeline, pageAt cluster.LSN) (cluster.LSN, error) {
	if err := r.loadPage(t, pageAt); err != nil {
		return 0, err
	}
	off := r.headerSize()
	if binary.LittleEndian.Uint16(r.buf[2:])&walContRecord != 0 {
		rem := uint64(binary.LittleEndian.Uint32(r.buf[16:]))
		if off+align8(rem) >= r.page {
			return 0, errNoRecord
		}
		off += align8(rem)
	}
	return pageAt + cluster.LSN(off), nil
}

// read reads the record at pos from the files of timeline t. One that was cut
// off by a crash is abandoned: the page on which it would go on says so, and
// the record there is the next one, as in recovery.
func (r *walReader) read(t cluster.Timeline, pos cluster.LSN) (record, error) {
	pageAt := r.pageOf(pos)
	if err := r.loadPage(t, pageAt); err != nil {
		return record{}, err
	}
	if uint64(pos-pageAt) < r.headerSize() {
		var err error
		if pos, err = r.firstOn(t, pageAt); err != nil {
			return record{}, err
		}
	}
	rec, abandoned, err := r.assemble(t, pos)
	for err == nil && abandoned {
		if pos, err = r.firstOn(rec.tli, rec.next); err == nil {
			rec, abandoned, err = r.assemble(rec.tli, pos)
		}
	}
	return rec, err
}

// assemble puts the record that begins at start together from its pages. When it
// was abandoned, next is the page that says so and tli that page's timeline.
func (r *walReader) assemble(t cluster.Timeline, start cluster.LSN) (rec record, abandoned bool, err error) {
	pageAt := r.pageOf(start)
	if err := r.loadPage(t, pageAt); err != nil {
		return rec, false, err
	}
	off := uint64(start - pageAt)
	total := uint64(binary.LittleEndian.Uint32(r.buf[off:])) // never split: records are aligned to 8
	if total < walRecordHeader || total > walMaxRecord {
		return rec, false, errNoRecord
	}
	var head [walRecordHeader]byte
	have, crc := uint64(0), uint32(0)
	for {
		part := r.buf[off:min(r.page, off+total-have)]
		off, have = off+uint64(len(part)), have+uint64(len(part))
		if before := have - uint64(len(part)); before < walRecordHeader {
			part = part[copy(head[before:], part):]
		}
		crc = crc32.Update(crc, crc32c, part)
		if have == total {
			break
		}
		pageAt += cluster.LSN(r.page)
		if t, off, err = r.continuation(t, pageAt, total-have); errors.Is(err, errAbandoned) {
			return record{next: pageAt, tli: t}, true, nil
		} else if err != nil {
			return rec, false, err
		}
	}
	le := binary.LittleEndian
	if crc = crc32.Update(crc, crc32c, head[:20]); crc != le.Uint32(head[20:]) {
		return rec, false, errNoRecord
	}
	rec = record{start: start, prev: cluster.LSN(le.Uint64(head[8:])), next: pageAt + cluster.LSN(align8(off)), tli: t}
	rec.isSwitch = head[17] == 0 && head[16]&0xF0 == 0x40 // RM_XLOG_ID, XLOG_SWITCH
	return rec, false, nil
}

// errAbandoned: the page says that the record which should go on there was
// given up (XLP_FIRST_IS_OVERWRITE_CONTRECORD).
var errAbandoned = errors.New("abandoned record")

// continuation finds where a record goes on at a page. In a new segment that may
// be a newer timeline's file, the newest first: it begins with a copy of its
// parent's end.
func (r *walReader) continuation(t cluster.Timeline, pageAt cluster.LSN, rest uint64) (cluster.Timeline, uint64, error) {
	try := []cluster.Timeline{t}
	if uint64(pageAt)%r.segSize == 0 {
		try = r.timelines(pageAt)
	}
	le := binary.LittleEndian
	for _, t := range newerFirst(try, t) {
		if err := r.loadPage(t, pageAt); errors.Is(err, errNoRecord) {
			continue
		} else if err != nil {
			return t, 0, err
		}
		switch flags := le.Uint16(r.buf[2:]); {
		case flags&walOverwriteCont != 0:
			return t, 0, errAbandoned
		case flags&walContRecord != 0 && uint64(le.Uint32(r.buf[16:])) == rest:
			return t, r.headerSize(), nil
		}
	}
	return t, 0, errNoRecord
}

// newerFirst leaves out the timelines older than t, as recovery does.
func newerFirst(all []cluster.Timeline, t cluster.Timeline) []cluster.Timeline {
	if i := slices.IndexFunc(all, func(x cluster.Timeline) bool { return x < t }); i >= 0 {
		return all[:i]
	}
	return all
}

func align8(n uint64) uint64 { return (n + 7) &^ 7 }

func (r *walReader) pageOf(at cluster.LSN) cluster.LSN { return at - at%cluster.LSN(r.page) }
