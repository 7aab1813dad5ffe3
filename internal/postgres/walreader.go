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
	"strconv"

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
		if t, seg, ok := parseSegment(f.Name(), r.segSize); ok {
			r.files[seg] = append(r.files[seg], t)
		}
	}
	for _, t := range r.files {
		slices.Sort(t)
		slices.Reverse(t)
	}
	return r, nil
}

// parseSegment reads a segment's file name.
func parseSegment(name string, segSize uint64) (cluster.Timeline, uint64, bool) {
	if len(name) != 24 {
		return 0, 0, false
	}
	t, err1 := strconv.ParseUint(name[:8], 16, 32)
	hi, err2 := strconv.ParseUint(name[8:16], 16, 32)
	lo, err3 := strconv.ParseUint(name[16:], 16, 32)
	if err1 != nil || err2 != nil || err3 != nil {
		return 0, 0, false
	}
	return cluster.Timeline(t), hi*(0x100000000/segSize) + lo, true
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
	isSwitch          bool
}

// read reads the record at pos from the files of timeline t (its continuation
// from t's as well, or from any newer or older one that goes on).
func (r *walReader) read(t cluster.Timeline, pos cluster.LSN) (record, error) {
	pageAt := pos - pos%cluster.LSN(r.page)
	if err := r.loadPage(t, pageAt); err != nil {
		return record{}, err
	}
	off := uint64(pos - pageAt)
	if off < r.headerSize() {
		off = r.headerSize()
		// A record that began on an earlier page may go on here; the one at pos
		// begins behind it.
		if binary.LittleEndian.Uint16(r.buf[2:])&walContRecord != 0 {
			rem := uint64(binary.LittleEndian.Uint32(r.buf[16:]))
			if off+align8(rem) >= r.page {
				return record{}, errNoRecord
			}
			off += align8(rem)
		}
	}
	start := pageAt + cluster.LSN(off)
	var head [walRecordHeader]byte
	var total, have uint64
	crc := uint32(0)
	for first := true; first || have < total; first = false {
		if !first {
			pageAt += cluster.LSN(r.page)
			var err error
			if off, err = r.continuation(t, pageAt, total-have); err != nil {
				return record{}, err
			}
		} else {
			total = uint64(binary.LittleEndian.Uint32(r.buf[off:])) // never split: records are aligned to 8
			if total < walRecordHeader || total > walMaxRecord {
				return record{}, errNoRecord
			}
		}
		part := r.buf[off:min(r.page, off+total-have)]
		if have < walRecordHeader {
			n := copy(head[have:], part)
			have, part = have+uint64(n), part[n:]
			off += uint64(n)
		}
		crc = crc32.Update(crc, crc32c, part)
		have += uint64(len(part))
		off += uint64(len(part))
	}
	le := binary.LittleEndian
	if crc = crc32.Update(crc, crc32c, head[:20]); crc != le.Uint32(head[20:]) {
		return record{}, errNoRecord
	}
	rec := record{start: start, prev: cluster.LSN(le.Uint64(head[8:])), next: pageAt + cluster.LSN(align8(off))}
	rec.isSwitch = head[17] == 0 && head[16]&0xF0 == 0x40 // RM_XLOG_ID, XLOG_SWITCH
	return rec, nil
}

// continuation finds where a record goes on at a page.
func (r *walReader) continuation(t cluster.Timeline, pageAt cluster.LSN, rest uint64) (uint64, error) {
	err := r.loadPage(t, pageAt)
	if errors.Is(err, errNoRecord) && uint64(pageAt)%r.segSize == 0 {
		// Across segments the record may go on in another timeline's file: a
		// timeline's first file begins with a copy of its parent's.
		for _, other := range r.timelines(pageAt) {
			if other != t {
				if err = r.loadPage(other, pageAt); err == nil {
					break
				}
			}
		}
	}
	if err != nil {
		return 0, err
	}
	le := binary.LittleEndian
	if le.Uint16(r.buf[2:])&walContRecord == 0 || uint64(le.Uint32(r.buf[16:])) != rest {
		return 0, errNoRecord
	}
	return r.headerSize(), nil
}

func align8(n uint64) uint64 { return (n + 7) &^ 7 }

// end walks from a record's start (or end) to the end of what is intact. It
// returns that end and the timeline of the file that holds the last record; a
// zero timeline means that no record was found at from.
func (r *walReader) end(from cluster.LSN) (cluster.LSN, cluster.Timeline, error) {
	defer r.close()
	at, tli, last := from, cluster.Timeline(0), cluster.LSN(0)
	for {
		rec, t, err := r.next(at, tli, last)
		if errors.Is(err, errNoRecord) {
			return at, tli, nil
		}
		if err != nil {
			return at, tli, fmt.Errorf("read WAL at %s: %w", at, err)
		}
		at, tli, last = rec.next, t, rec.start
		if rec.isSwitch && uint64(at)%r.segSize != 0 {
			at = cluster.LSN((uint64(at)/r.segSize + 1) * r.segSize)
		}
	}
}

// next reads the record at pos from the file of the newest timeline that has
// one which follows the last record, or the page behind a record that was cut
// off by a crash and written over.
func (r *walReader) next(pos cluster.LSN, tli cluster.Timeline, last cluster.LSN) (record, cluster.Timeline, error) {
	for _, t := range r.timelines(pos) {
		if t < tli {
			break
		}
		rec, err := r.read(t, pos)
		if err == nil && last != 0 && rec.prev != last {
			err = errNoRecord
		}
		if err == nil {
			return rec, t, nil
		}
		if !errors.Is(err, errNoRecord) {
			return record{}, 0, err
		}
	}
	return r.overwritten(pos, tli)
}

// overwritten looks for a page that says that the record which began before it
// was abandoned.
func (r *walReader) overwritten(pos cluster.LSN, tli cluster.Timeline) (record, cluster.Timeline, error) {
	pageAt := pos - pos%cluster.LSN(r.page)
	for range 64 { // an abandoned record is seldom longer
		pageAt += cluster.LSN(r.page)
		for _, t := range r.timelines(pageAt) {
			if t < tli || r.loadPage(t, pageAt) != nil {
				continue
			}
			if binary.LittleEndian.Uint16(r.buf[2:])&walOverwriteCont != 0 {
				rec, err := r.read(t, pageAt)
				return rec, t, err
			}
		}
	}
	return record{}, 0, errNoRecord
}
