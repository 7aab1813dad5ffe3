package repo

import (
	"fmt"
	"regexp"
	"strconv"
)

// WALKind says what an archived file is.
type WALKind int

// The kinds of files that PostgreSQL archives.
const (
	WALNone    WALKind = iota // nothing that belongs in an archive
	WALSegment                // a whole segment
	WALPartial                // the last, incomplete segment of an ended timeline
	WALHistory                // a timeline's history
	WALBackup                 // the history of a backup
)

var (
	segmentRE  = regexp.MustCompile(`^[0-9A-F]{24}$`)
	partialRE  = regexp.MustCompile(`^[0-9A-F]{24}\.partial$`)
	backupRE   = regexp.MustCompile(`^[0-9A-F]{24}\.[0-9A-F]{8}\.backup$`)
	historyRE  = regexp.MustCompile(`^[0-9A-F]{8}\.history$`)
	storedRE   = regexp.MustCompile(`^([0-9A-F]{24}(?:\.partial)?)-([0-9a-f]{40})(\.gz|\.bz2|\.lz4|\.xz|\.zst)?$`)
	walDirRE   = regexp.MustCompile(`^[0-9A-F]{16}$`)
	archiveRE  = regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?)-([0-9]+)$`)
	segmentLen = 24
)

// KindOfWAL tells what a file in pg_wal is by its name.
func KindOfWAL(name string) WALKind {
	switch {
	case segmentRE.MatchString(name):
		return WALSegment
	case partialRE.MatchString(name):
		return WALPartial
	case historyRE.MatchString(name):
		return WALHistory
	case backupRE.MatchString(name):
		return WALBackup
	}
	return WALNone
}

// WALDir is the directory of a segment in its archive id, "" for a history file.
func WALDir(name string) string {
	if historyRE.MatchString(name) {
		return ""
	}
	return name[:16]
}

// IsWALDir says whether a name is one that WALDir gives.
func IsWALDir(name string) bool { return walDirRE.MatchString(name) }

// StoredWAL is the name of an archived segment in the repository.
type StoredWAL struct {
	Name     string // as in pg_wal, with .partial
	SHA1     string // of the segment, hexadecimal
	Compress Compression
}

// String is the name of the file.
func (s StoredWAL) String() string { return s.Name + "-" + s.SHA1 + s.Compress.Ext() }

// ParseStoredWAL reads such a name.
func ParseStoredWAL(file string) (StoredWAL, bool) {
	m := storedRE.FindStringSubmatch(file)
	if m == nil {
		return StoredWAL{}, false
	}
	c, ok := compressionByExt(m[3])
	if !ok {
		return StoredWAL{}, false
	}
	return StoredWAL{Name: m[1], SHA1: m[2], Compress: c}, true
}

// ArchiveID names the directory of a cluster's WAL, "15-1".
func ArchiveID(version string, dbID int) string { return fmt.Sprintf("%s-%d", version, dbID) }

// ParseArchiveID reads such a name.
func ParseArchiveID(s string) (version string, dbID int, ok bool) {
	m := archiveRE.FindStringSubmatch(s)
	if m == nil {
		return "", 0, false
	}
	id, err := strconv.Atoi(m[2])
	return m[1], id, err == nil
}

// Segments lists the WAL segments from start to stop, both included and of one
// timeline, for segments of segSize bytes.
func Segments(start, stop string, segSize uint64) ([]string, error) {
	if !segmentRE.MatchString(start) || !segmentRE.MatchString(stop) || start[:8] != stop[:8] || stop < start {
		return nil, fmt.Errorf("no range of WAL segments from %q to %q", start, stop)
	}
	if segSize < 1<<20 || segSize > 1<<30 || segSize&(segSize-1) != 0 {
		return nil, fmt.Errorf("wal segment size %d: want a power of two from 1 MiB to 1 GiB", segSize)
	}
	per := uint64(1<<32) / segSize
	number := func(s string) uint64 {
		hi, _ := strconv.ParseUint(s[8:16], 16, 32)
		lo, _ := strconv.ParseUint(s[16:segmentLen], 16, 32)
		return hi*per + lo
	}
	var out []string
	for n := number(start); n <= number(stop); n++ {
		out = append(out, fmt.Sprintf("%s%08X%08X", start[:8], n/per, n%per))
	}
	return out, nil
}
