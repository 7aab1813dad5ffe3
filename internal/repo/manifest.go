package repo

import (
	"encoding/json"
	"slices"
	"strings"
)

// Names in a manifest begin with one of these.
const (
	TargetData  = "pg_data"   // PGDATA
	TargetTblsp = "pg_tblspc" // pg_tblspc/<oid>/..., what a tablespace's link points to
)

// Manifest is backup.manifest: everything that a restore has to know. Times are
// seconds since 1970.
type Manifest struct {
	BackrestVersion string

	ArchiveStart, ArchiveStop string // "" for an offline backup
	BlockIncr                 bool   // some files may be stored as blocks
	Bundle                    bool   // small files are in bundles, empty ones nowhere
	BundleRaw                 bool   // gz and lz4 without their headers
	Label                     string
	LSNStart, LSNStop         string
	Prior                     string   // "" for a full
	References                []string // all backups whose files it uses, oldest first, itself last
	CopyStart, Start, Stop    int64
	Type                      BackupType

	DB          DB
	Option      ManifestOption
	Targets     []Target
	Databases   []Database
	Annotations map[string]string
	Files       []File // ascending by name, as are Links and Paths
	Links       []Link
	Paths       []Path

	FileDefault, LinkDefault, PathDefault Default
}

// ManifestOption is [backup:option]; nil is an option that was not recorded.
type ManifestOption struct {
	ArchiveCheck, ArchiveCopy bool
	BackupStandby             *bool
	BufferSize                *int64
	ChecksumPage              *bool
	Compress                  Compression
	CompressLevel             *int
	CompressLevelNetwork      *int
	Delta                     *bool
	Hardlink                  bool
	Online                    bool
	ProcessMax                *int
}

// Owner is a user or group name; "" is one that had no name (false in the file).
type Owner string

// Default is what files, links or paths have that say nothing else.
type Default struct {
	Group, User Owner
	Mode        uint32 // not for links
}

// Target is where PGDATA, a tablespace or another link of the cluster was.
type Target struct {
	Name           string // pg_data, pg_tblspc/<oid>, pg_data/<link>
	Path           string // the directory, or the directory of File
	File           string // for a link to a file
	TablespaceID   string // its oid, for a tablespace
	TablespaceName string
	Link           bool
}

// Database is one of the cluster's databases.
type Database struct {
	Name         string
	ID           uint32
	LastSystemID uint32
}

// Link is a symbolic link in PGDATA.
type Link struct {
	Name        string
	Destination string
	Group, User Owner
}

// Path is a directory.
type Path struct {
	Name        string
	Group, User Owner
	Mode        uint32
}

// File is one file of the backup. Sizes are bytes.
type File struct {
	Name         string
	Size         int64  // as stored
	SizeOriginal int64  // as it was when the backup began
	SizeRepo     int64  // in the repository
	SHA1         string // hexadecimal; "" for an empty file
	RepoSHA1     string // of the stored bytes; "" when they are the file's, or unknown
	Timestamp    int64  // mtime
	Reference    string // the backup that has it, "" for this one
	BundleID     uint64 // 0 for a file of its own
	BundleOffset int64

	ChecksumPage      bool            // its page checksums were looked at
	ChecksumPageError bool            // and not all were right
	PageErrors        json.RawMessage // which pages, [n,[from,to]]; nil when unknown

	Group, User Owner
	Mode        uint32

	BlockSize, BlockChecksumSize, BlockMapSize int64 // block incremental
}

// emptySHA1 is what a file of no bytes hashes to.
const emptySHA1 = "da39a3ee5e6b4b0d3255bfef95601890afd80709"

// Hash is the SHA-1 that the restored file must have.
func (f *File) Hash() string {
	if f.Size == 0 {
		return emptySHA1
	}
	return f.SHA1
}

// DataTarget is where PGDATA was.
func (m *Manifest) DataTarget() Target {
	for _, t := range m.Targets {
		if t.Name == TargetData {
			return t
		}
	}
	return Target{}
}

// Find gives a file by name, nil if there is none.
func (m *Manifest) Find(name string) *File {
	i, ok := slices.BinarySearchFunc(m.Files, name, func(f File, n string) int { return strings.Compare(f.Name, n) })
	if !ok {
		return nil
	}
	return &m.Files[i]
}

// Entry is what backup.info says of this backup.
func (m *Manifest) Entry() BackupEntry {
	e := BackupEntry{
		Label: m.Label, Format: Format, BackrestVersion: m.BackrestVersion, Annotations: m.Annotations,
		ArchiveStart: m.ArchiveStart, ArchiveStop: m.ArchiveStop, LSNStart: m.LSNStart, LSNStop: m.LSNStop,
		Prior: m.Prior, TimeStart: m.Start, TimeStop: m.Stop, Type: m.Type, DBID: m.DB.ID,
		ArchiveCheck: m.Option.ArchiveCheck, ArchiveCopy: m.Option.ArchiveCopy,
		BackupStandby: m.Option.BackupStandby != nil && *m.Option.BackupStandby,
		ChecksumPage:  m.Option.ChecksumPage != nil && *m.Option.ChecksumPage,
		Compress:      m.Option.Compress != None, Hardlink: m.Option.Hardlink, Online: m.Option.Online,
	}
	pageError := false
	used := map[string]bool{}
	for i := range m.Files {
		f := &m.Files[i]
		e.Size += f.Size
		e.RepoSize += f.SizeRepo
		if f.Reference == "" {
			e.SizeDelta += f.Size
			e.RepoSizeDelta += f.SizeRepo
		} else {
			used[f.Reference] = true
		}
		pageError = pageError || f.ChecksumPageError
	}
	e.Error = &pageError
	for _, r := range m.References {
		if r != m.Label && (used[r] || r == m.Prior) {
			e.Reference = append(e.Reference, r)
		}
	}
	return e
}
