package backup

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Control is what a backup needs from pg_control.
type Control struct {
	SystemID       uint64
	ControlVersion uint32
	CatalogVersion uint32
	Timeline       uint32 // of the last checkpoint
	BlockSize      uint32
	SegmentSize    uint32 // of WAL, bytes
	PageChecksums  bool
}

// Offsets in ControlFileData, the same from PostgreSQL 13 to 18 as far as they
// go (src/include/catalog/pg_control.h); the CRC's place varies and is searched.
const (
	ctlSystemID   = 0
	ctlVersion    = 8
	ctlCatalog    = 12
	ctlCheckpoint = 32
	ctlTimeline   = 48
	ctlBlockSize  = 216
	ctlWALSegment = 228
	ctlChecksums  = 252
	ctlSize       = 8192
	ctlCRCFirst   = 256
	ctlCRCLast    = 512
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// controlCRC finds where the CRC is: the one place where the number is the CRC
// of all before it.
func controlCRC(b []byte) (int, bool) {
	for at := ctlCRCFirst; at+4 <= min(len(b), ctlCRCLast); at += 4 {
		if crc32.Checksum(b[:at], castagnoli) == binary.LittleEndian.Uint32(b[at:]) {
			return at, true
		}
	}
	return 0, false
}

// ParseControl reads the content of global/pg_control.
func ParseControl(b []byte) (Control, error) {
	if len(b) < ctlCRCLast {
		return Control{}, fmt.Errorf("read pg_control: it has %d bytes", len(b))
	}
	if _, ok := controlCRC(b); !ok {
		return Control{}, fmt.Errorf("read pg_control: its CRC does not match")
	}
	u := binary.LittleEndian.Uint32
	c := Control{
		SystemID:       binary.LittleEndian.Uint64(b[ctlSystemID:]),
		ControlVersion: u(b[ctlVersion:]), CatalogVersion: u(b[ctlCatalog:]), Timeline: u(b[ctlTimeline:]),
		BlockSize: u(b[ctlBlockSize:]), SegmentSize: u(b[ctlWALSegment:]), PageChecksums: u(b[ctlChecksums:]) != 0,
	}
	if c.ControlVersion != 1300 && c.ControlVersion != 1800 {
		return Control{}, fail(CodeVersion, "PostgreSQL 13 to 18 are supported.", "pg_control version %d is not supported", c.ControlVersion)
	}
	if c.BlockSize != pageSize {
		return Control{}, fail(CodeVersion, "", "pages of %d bytes are not supported, only of %d", c.BlockSize, pageSize)
	}
	return c, nil
}

// controlPatience is how long reading pg_control is repeated while its CRC does
// not match, because PostgreSQL is writing it.
const controlPatience = 10 * time.Second

// readControl reads pg_control of a cluster that may be running.
func readControl(ctx context.Context, pgdata string) (Control, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, controlPatience)
	defer cancel()
	for {
		b, err := os.ReadFile(filepath.Join(pgdata, "global", "pg_control"))
		if err != nil {
			return Control{}, nil, err
		}
		c, err := ParseControl(b)
		if err == nil || Code(err) != 0 {
			return c, b, err
		}
		select {
		case <-ctx.Done():
			return Control{}, nil, err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// ReadControl reads pg_control of a data directory, whose cluster may be running.
func ReadControl(ctx context.Context, pgdata string) (Control, error) {
	c, _, err := readControl(ctx, pgdata)
	return c, err
}

// invalidateControl makes a cluster that has lost its backup_label refuse to
// start, rather than start from the wrong checkpoint: it points the checkpoint
// at a position that cannot be one.
func invalidateControl(b []byte) error {
	at, ok := controlCRC(b)
	if !ok {
		return fmt.Errorf("pg_control: its CRC does not match")
	}
	binary.LittleEndian.PutUint64(b[ctlCheckpoint:], 0xDEAD)
	binary.LittleEndian.PutUint32(b[at:], crc32.Checksum(b[:at], castagnoli))
	return nil
}

// ReadVersion is the major version of a data directory, "15".
func ReadVersion(pgdata string) (string, error) {
	b, err := os.ReadFile(filepath.Join(pgdata, "PG_VERSION"))
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(b)), nil
}
