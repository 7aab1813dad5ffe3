package cluster

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// LSN is a position in the write-ahead log, a byte offset (PostgreSQL's
// XLogRecPtr). Zero is "no position" (InvalidXLogRecPtr). Positions of
// different timelines are not comparable on their own: see Position.
type LSN uint64

// ParseLSN reads PostgreSQL's notation, "0/16B3740".
func ParseLSN(s string) (LSN, error) {
	hi, lo, ok := strings.Cut(s, "/")
	if !ok {
		return 0, fmt.Errorf("parse lsn %q: want HEX/HEX, as in 0/16B3740", s)
	}
	h, err := strconv.ParseUint(hi, 16, 32)
	if err != nil {
		return 0, fmt.Errorf("parse lsn %q: %w", s, err)
	}
	l, err := strconv.ParseUint(lo, 16, 32)
	if err != nil {
		return 0, fmt.Errorf("parse lsn %q: %w", s, err)
	}
	return LSN(h<<32 | l), nil
}

// String gives PostgreSQL's notation, "0/16B3740".
func (l LSN) String() string { return fmt.Sprintf("%X/%X", uint32(l>>32), uint32(l)) }

// MarshalJSON writes the position as a string; no position is null.
func (l LSN) MarshalJSON() ([]byte, error) {
	if l == 0 {
		return []byte("null"), nil
	}
	return json.Marshal(l.String())
}

// UnmarshalJSON reads what MarshalJSON writes.
func (l *LSN) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		*l = 0
		return nil
	}
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("parse lsn: %w", err)
	}
	v, err := ParseLSN(s)
	if err != nil {
		return err
	}
	*l = v
	return nil
}

// Timeline is PostgreSQL's timeline id. It is not an identity: two divergent
// promotions of one ancestor both get the same number unless somebody
// allocates it (trap T3), which the term does.
type Timeline uint32

// Segment names the WAL segment file of segSize bytes that holds the position
// on this timeline (24 hexadecimal digits).
func (t Timeline) Segment(l LSN, segSize uint64) string {
	n := uint64(l) / segSize
	per := uint64(0x100000000) / segSize
	return fmt.Sprintf("%08X%08X%08X", uint32(t), uint32(n/per), uint32(n%per))
}

// ParseSegment reads the name of a WAL segment file of segSize bytes: its timeline
// and its number, counted from the beginning of WAL.
func ParseSegment(name string, segSize uint64) (t Timeline, number uint64, ok bool) {
	if len(name) != 24 {
		return 0, 0, false
	}
	tl, err1 := strconv.ParseUint(name[:8], 16, 32)
	hi, err2 := strconv.ParseUint(name[8:16], 16, 32)
	lo, err3 := strconv.ParseUint(name[16:], 16, 32)
	if err1 != nil || err2 != nil || err3 != nil {
		return 0, 0, false
	}
	return Timeline(tl), hi*(0x100000000/segSize) + lo, true
}

// HistoryFile names the timeline's history file, "00000002.history".
func (t Timeline) HistoryFile() string { return fmt.Sprintf("%08X.history", uint32(t)) }

// ParseHistory reads a timeline's history file: its ancestors, oldest first, and
// where each was left.
func ParseHistory(text []byte) ([]Stretch, error) {
	var out []Stretch
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) < 2 || strings.HasPrefix(f[0], "#") {
			continue
		}
		tl, err := strconv.ParseUint(f[0], 10, 32)
		if err != nil {
			return nil, fmt.Errorf("parse timeline %q: %w", f[0], err)
		}
		at, err := ParseLSN(f[1])
		if err != nil {
			return nil, err
		}
		out = append(out, Stretch{Timeline(tl), at})
	}
	return out, nil
}

// Position is a place in the history of a herd: the epoch whose WAL it is and
// the LSN in it. Two positions compare by epoch first: after two takeovers a
// lower LSN can be the right history (finding C7).
type Position struct {
	Epoch uint64 `json:"epoch"`
	LSN   LSN    `json:"lsn"`
}

// Less says whether p comes before o.
func (p Position) Less(o Position) bool {
	if p.Epoch != o.Epoch {
		return p.Epoch < o.Epoch
	}
	return p.LSN < o.LSN
}
