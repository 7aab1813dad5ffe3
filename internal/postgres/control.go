package postgres

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strconv"

	"manada/internal/cluster"
)

// ControlState is the state of the database cluster in pg_control (DBState).
type ControlState uint32

const (
	ControlStartup          ControlState = iota // never ran
	ControlShutDown                             // stopped cleanly as primary
	ControlShutDownRecovery                     // stopped cleanly as standby
	ControlShuttingDown                         // died while stopping
	ControlCrashRecovery                        // in, or died in, crash recovery
	ControlArchiveRecovery                      // runs, or died, as standby
	ControlInProduction                         // runs, or died, as primary
)

// String gives pg_controldata's words.
func (s ControlState) String() string {
	names := [...]string{"starting up", "shut down", "shut down in recovery", "shutting down", "in crash recovery", "in archive recovery", "in production"}
	if int(s) < len(names) {
		return names[s]
	}
	return "unrecognized status code"
}

// Primary says whether the state is one that only a primary leaves behind.
func (s ControlState) Primary() bool {
	switch s {
	case ControlShutDown, ControlShuttingDown, ControlCrashRecovery, ControlInProduction:
		return true
	}
	return false
}

// Clean says whether PostgreSQL had stopped in order.
func (s ControlState) Clean() bool { return s == ControlShutDown || s == ControlShutDownRecovery }

// Control is what we use of global/pg_control (layout: ControlFileData in
// PostgreSQL's catalog/pg_control.h).
type Control struct {
	SystemID         string // decimal, as pg_controldata prints it
	Version          uint32
	State            ControlState
	Checkpoint       cluster.LSN // of the newest checkpoint record
	Redo             cluster.LSN // where recovery from it begins; a record's start
	Timeline         cluster.Timeline
	MinRecovery      cluster.LSN // a standby is consistent only past it; end of a record
	MinRecoveryTL    cluster.Timeline
	BackupStart      cluster.LSN
	BackupEndWanted  bool
	WALBlockSize     uint32
	SegmentSize      uint64
	ChecksumsEnabled bool
	// Wants are the settings of the primary below which a standby's replay stops.
	Wants map[string]int
}

// controlLayouts gives the offset of the checksum by pg_control version; what
// lies before it is the same in all of them.
var controlLayouts = map[uint32]int{
	1300: 288, // PostgreSQL 13 to 16
	1700: 288, // 17
	1800: 292, // 18
}

var crc32c = crc32.MakeTable(crc32.Castagnoli)

// errTornControl asks for another look: the file is overwritten in place while
// PostgreSQL runs.
var errTornControl = errors.New("checksum does not match")

// ReadControl reads dataDir/global/pg_control and verifies its checksum.
func ReadControl(dataDir string) (Control, error) {
	path := filepath.Join(dataDir, "global", "pg_control")
	var err error
	for range 5 {
		var b []byte
		if b, err = os.ReadFile(path); err != nil {
			return Control{}, fmt.Errorf("read control file: %w", err)
		}
		var c Control
		if c, err = parseControl(b); err == nil {
			return c, nil
		}
		if !errors.Is(err, errTornControl) {
			break
		}
	}
	return Control{}, fmt.Errorf("read control file %s: %w", path, err)
}

func parseControl(b []byte) (Control, error) {
	le := binary.LittleEndian
	if len(b) < 512 {
		return Control{}, fmt.Errorf("only %d bytes", len(b))
	}
	v := le.Uint32(b[8:])
	end, ok := controlLayouts[v]
	if !ok {
		return Control{}, fmt.Errorf("pg_control version %d is not known: PostgreSQL %d to 18 are supported (or the byte order is another machine's)", v, MinMajor)
	}
	if crc32.Checksum(b[:end], crc32c) != le.Uint32(b[end:]) {
		return Control{}, errTornControl
	}
	return Control{
		SystemID: strconv.FormatUint(le.Uint64(b), 10), Version: v,
		State:      ControlState(le.Uint32(b[16:])),
		Checkpoint: cluster.LSN(le.Uint64(b[32:])), Redo: cluster.LSN(le.Uint64(b[40:])),
		Timeline:    cluster.Timeline(le.Uint32(b[48:])),
		MinRecovery: cluster.LSN(le.Uint64(b[136:])), MinRecoveryTL: cluster.Timeline(le.Uint32(b[144:])),
		BackupStart: cluster.LSN(le.Uint64(b[152:])), BackupEndWanted: b[168] != 0,
		WALBlockSize: le.Uint32(b[224:]), SegmentSize: uint64(le.Uint32(b[228:])),
		ChecksumsEnabled: le.Uint32(b[252:]) != 0,
		Wants: map[string]int{
			"max_connections": int(le.Uint32(b[180:])), "max_worker_processes": int(le.Uint32(b[184:])),
			"max_wal_senders": int(le.Uint32(b[188:])), "max_prepared_transactions": int(le.Uint32(b[192:])),
			"max_locks_per_transaction": int(le.Uint32(b[196:])),
		},
	}, nil
}
