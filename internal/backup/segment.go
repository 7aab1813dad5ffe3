package backup

import (
	"encoding/binary"

	"manada/internal/cluster"
	"manada/internal/repo"
)

// SegmentHeader is how many bytes of a WAL segment CheckSegment looks at.
const SegmentHeader = 40

// walMagic maps the magic number of a WAL page to the major version that writes it.
var walMagic = map[uint16]string{0xD106: "13", 0xD10D: "14", 0xD110: "15", 0xD113: "16", 0xD116: "17", 0xD118: "18"}

// CheckSegment makes sure that what a segment begins with (XLogLongPageHeaderData
// of PostgreSQL's xlog_internal.h) is of the stanza's cluster and belongs under
// this name of pg_wal, and gives the size of the segment in bytes.
func CheckSegment(name string, b []byte, db repo.DB) (size int64, err error) {
	const timeline, address, sysID, segSize = 4, 8, 24, 32
	if len(b) < SegmentHeader {
		return 0, fail(CodeFormat, "", "the segment has only %d bytes", len(b))
	}
	le := binary.LittleEndian
	magic := le.Uint16(b)
	version, ok := walMagic[magic]
	if !ok || le.Uint16(b[2:])&2 == 0 { // XLP_LONG_HEADER
		return 0, fail(CodeVersion, "PostgreSQL 13 to 18 are supported.", "the segment begins with the unknown WAL page magic %04X", magic)
	}
	id := le.Uint64(b[sysID:])
	if version != db.Version || id != db.SystemID {
		return 0, fail(CodeArchiveMismatch, "Is archive_command of this cluster set to another cluster's stanza?",
			"the segment is of version %s, system identifier %d; the stanza is for version %s, system identifier %d",
			version, id, db.Version, db.SystemID)
	}
	size = int64(le.Uint32(b[segSize:]))
	if size < 1<<20 || size > maxWAL || size&(size-1) != 0 {
		return 0, fail(CodeFormat, "", "the segment says that it has %d bytes", size)
	}
	own, number, ok := cluster.ParseSegment(name[:min(24, len(name))], uint64(size)) // of a .partial, too
	if !ok {
		return 0, fail(CodeOption, "", "%q is not the name of a WAL segment", name)
	}
	// The first segment of a timeline may begin with its parent's pages.
	if tl := cluster.Timeline(le.Uint32(b[timeline:])); tl == 0 || tl > own {
		return 0, fail(CodeFormat, "", "the segment begins on timeline %d, its name says %d", tl, own)
	}
	if at, want := cluster.LSN(le.Uint64(b[address:])), cluster.LSN(number*uint64(size)); at != want {
		return 0, fail(CodeFormat, "", "the segment begins at %s, its name says %s", at, want)
	}
	return size, nil
}
