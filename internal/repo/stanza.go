package repo

import (
	"encoding/json"
	"fmt"
	"slices"
	"sort"
	"strconv"
)

// Version is what the files that we write carry as backrest-version. Any text is
// accepted by pgBackRest; it begins with a number for tools that parse it.
const Version = "2.45-manada"

// DB identifies a cluster that a stanza has held. Catalog and Control are 0 in
// an archive.info.
type DB struct {
	ID       int // numbers the clusters of a stanza from 1
	SystemID uint64
	Version  string // "15"
	Catalog  uint32
	Control  uint32
}

// ArchiveID names the directory of this cluster's WAL.
func (d DB) ArchiveID() string { return ArchiveID(d.Version, d.ID) }

// ArchiveInfo is archive.info.
type ArchiveInfo struct {
	BackrestVersion string
	Current         int  // ID of the cluster in use
	History         []DB // ascending by ID, Current's included
}

// BackupInfo is backup.info.
type BackupInfo struct {
	BackrestVersion string
	Current         int
	History         []DB
	Backups         []BackupEntry // ascending by label
}

// BackupEntry is what backup.info says of one backup. Sizes are bytes, times
// seconds since 1970.
type BackupEntry struct {
	Label               string
	Format              int
	BackrestVersion     string
	Annotations         map[string]string
	ArchiveStart        string // "" for an offline backup
	ArchiveStop         string
	Error               *bool // page checksum errors; nil before 2.36
	RepoSize            int64
	RepoSizeDelta       int64
	RepoSizeMap         *int64 // with block incremental
	RepoSizeMapDelta    *int64
	Size                int64
	SizeDelta           int64
	LSNStart, LSNStop   string
	Prior               string   // "" for a full
	Reference           []string // the backups whose files it uses, itself excluded
	TimeStart, TimeStop int64
	Type                BackupType
	DBID                int
	ArchiveCheck        bool
	ArchiveCopy         bool
	BackupStandby       bool
	ChecksumPage        bool
	Compress            bool
	Hardlink            bool
	Online              bool
}

func current(history []DB, id int) (DB, error) {
	for _, d := range history {
		if d.ID == id {
			return d, nil
		}
	}
	return DB{}, fmt.Errorf("%w: db-id %d is not in its history", ErrFormat, id)
}

// DB is the cluster in use.
func (a *ArchiveInfo) DB() (DB, error) { return current(a.History, a.Current) }

// DB is the cluster in use.
func (b *BackupInfo) DB() (DB, error) { return current(b.History, b.Current) }

// Find gives a backup by label, nil if there is none.
func (b *BackupInfo) Find(label string) *BackupEntry {
	for i := range b.Backups {
		if b.Backups[i].Label == label {
			return &b.Backups[i]
		}
	}
	return nil
}

// Add puts a backup in its place, replacing one of the same label.
func (b *BackupInfo) Add(e BackupEntry) {
	b.Remove(e.Label)
	b.Backups = append(b.Backups, e)
	sort.Slice(b.Backups, func(i, j int) bool { return b.Backups[i].Label < b.Backups[j].Label })
}

// Remove forgets a backup.
func (b *BackupInfo) Remove(label string) {
	b.Backups = slices.DeleteFunc(b.Backups, func(e BackupEntry) bool { return e.Label == label })
}

// Dependents lists the backups that need the labelled one, itself first,
// ascending.
func (b *BackupInfo) Dependents(label string) []string {
	out := []string{label}
	for _, e := range b.Backups {
		if e.Label != label && (slices.Contains(e.Reference, label) || slices.Contains(out, e.Prior)) {
			out = append(out, e.Label)
		}
	}
	return out
}

type historyJSON struct {
	ID       uint64 `json:"db-id"`
	SystemID uint64 `json:"db-system-id"`
	Version  string `json:"db-version"`
	Catalog  uint32 `json:"db-catalog-version"`
	Control  uint32 `json:"db-control-version"`
}

// historySet reads one line of [db:history]. In archive.info the system
// identifier goes by the name db-id.
func historySet(history *[]DB, key, value string) error {
	id, err := strconv.Atoi(key)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrFormat, err)
	}
	var h historyJSON
	if err := decode(value, &h); err != nil {
		return err
	}
	if h.SystemID == 0 {
		h.SystemID = h.ID
	}
	*history = append(*history, DB{ID: id, SystemID: h.SystemID, Version: h.Version, Catalog: h.Catalog, Control: h.Control})
	return nil
}

func sortHistory(h []DB) {
	sort.Slice(h, func(i, j int) bool { return h[i].ID < h[j].ID })
}

// ParseArchiveInfo reads an archive.info.
func ParseArchiveInfo(data []byte) (*ArchiveInfo, error) {
	a := &ArchiveInfo{}
	v, err := parseInfo(data, func(section, key, value string) error {
		switch section {
		case "cipher":
			return fmt.Errorf("%w: the repository is encrypted", ErrUnsupported)
		case "db":
			return setter(map[string]any{"db-id": &a.Current}, key, value)
		case "db:history":
			return historySet(&a.History, key, value)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", ArchiveInfoFile, err)
	}
	a.BackrestVersion = v
	sortHistory(a.History)
	if _, err := a.DB(); err != nil {
		return nil, fmt.Errorf("read %s: %w", ArchiveInfoFile, err)
	}
	return a, nil
}

// Render writes an archive.info.
func (a *ArchiveInfo) Render() ([]byte, error) {
	cur, err := a.DB()
	if err != nil {
		return nil, err
	}
	w := newInfoWriter(a.BackrestVersion)
	w.put("db", "db-id", strconv.Itoa(cur.ID))
	w.put("db", "db-system-id", strconv.FormatUint(cur.SystemID, 10))
	w.put("db", "db-version", quote(cur.Version))
	for _, h := range a.History {
		w.put("db:history", strconv.Itoa(h.ID), fmt.Sprintf(`{"db-id":%d,"db-version":%s}`, h.SystemID, quote(h.Version)))
	}
	return w.bytes(), nil
}

type entryJSON struct {
	Format           int               `json:"backrest-format"`
	Version          string            `json:"backrest-version"`
	Annotation       map[string]string `json:"backup-annotation"`
	ArchiveStart     string            `json:"backup-archive-start"`
	ArchiveStop      string            `json:"backup-archive-stop"`
	Error            *bool             `json:"backup-error"`
	RepoSize         int64             `json:"backup-info-repo-size"`
	RepoSizeDelta    int64             `json:"backup-info-repo-size-delta"`
	RepoSizeMap      *int64            `json:"backup-info-repo-size-map"`
	RepoSizeMapDelta *int64            `json:"backup-info-repo-size-map-delta"`
	Size             int64             `json:"backup-info-size"`
	SizeDelta        int64             `json:"backup-info-size-delta"`
	LSNStart         string            `json:"backup-lsn-start"`
	LSNStop          string            `json:"backup-lsn-stop"`
	Prior            string            `json:"backup-prior"`
	Reference        []string          `json:"backup-reference"`
	TimeStart        int64             `json:"backup-timestamp-start"`
	TimeStop         int64             `json:"backup-timestamp-stop"`
	Type             BackupType        `json:"backup-type"`
	DBID             int               `json:"db-id"`
	ArchiveCheck     bool              `json:"option-archive-check"`
	ArchiveCopy      bool              `json:"option-archive-copy"`
	BackupStandby    bool              `json:"option-backup-standby"`
	ChecksumPage     bool              `json:"option-checksum-page"`
	Compress         bool              `json:"option-compress"`
	Hardlink         bool              `json:"option-hardlink"`
	Online           bool              `json:"option-online"`
}

func entryFrom(label string, j entryJSON) BackupEntry {
	return BackupEntry{Label: label, Format: j.Format, BackrestVersion: j.Version, Annotations: j.Annotation,
		ArchiveStart: j.ArchiveStart, ArchiveStop: j.ArchiveStop, Error: j.Error,
		RepoSize: j.RepoSize, RepoSizeDelta: j.RepoSizeDelta, RepoSizeMap: j.RepoSizeMap, RepoSizeMapDelta: j.RepoSizeMapDelta,
		Size: j.Size, SizeDelta: j.SizeDelta, LSNStart: j.LSNStart, LSNStop: j.LSNStop, Prior: j.Prior, Reference: j.Reference,
		TimeStart: j.TimeStart, TimeStop: j.TimeStop, Type: j.Type, DBID: j.DBID, ArchiveCheck: j.ArchiveCheck,
		ArchiveCopy: j.ArchiveCopy, BackupStandby: j.BackupStandby, ChecksumPage: j.ChecksumPage, Compress: j.Compress,
		Hardlink: j.Hardlink, Online: j.Online}
}

// ParseBackupInfo reads a backup.info.
func ParseBackupInfo(data []byte) (*BackupInfo, error) {
	b := &BackupInfo{}
	v, err := parseInfo(data, func(section, key, value string) error {
		switch section {
		case "cipher":
			return fmt.Errorf("%w: the repository is encrypted", ErrUnsupported)
		case "db":
			return setter(map[string]any{"db-id": &b.Current}, key, value)
		case "db:history":
			return historySet(&b.History, key, value)
		case "backup:current":
			if !IsLabel(key) {
				return fmt.Errorf("%w: not a backup label", ErrFormat)
			}
			var j entryJSON
			if err := decode(value, &j); err != nil {
				return err
			}
			b.Backups = append(b.Backups, entryFrom(key, j))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", BackupInfoFile, err)
	}
	b.BackrestVersion = v
	sortHistory(b.History)
	sort.Slice(b.Backups, func(i, j int) bool { return b.Backups[i].Label < b.Backups[j].Label })
	if _, err := b.DB(); err != nil {
		return nil, fmt.Errorf("read %s: %w", BackupInfoFile, err)
	}
	return b, nil
}

// Render writes a backup.info.
func (b *BackupInfo) Render() ([]byte, error) {
	cur, err := b.DB()
	if err != nil {
		return nil, err
	}
	w := newInfoWriter(b.BackrestVersion)
	for i := range b.Backups {
		w.put("backup:current", b.Backups[i].Label, string(b.Backups[i].render()))
	}
	w.put("db", "db-catalog-version", strconv.FormatUint(uint64(cur.Catalog), 10))
	w.put("db", "db-control-version", strconv.FormatUint(uint64(cur.Control), 10))
	w.put("db", "db-id", strconv.Itoa(cur.ID))
	w.put("db", "db-system-id", strconv.FormatUint(cur.SystemID, 10))
	w.put("db", "db-version", quote(cur.Version))
	for _, h := range b.History {
		w.put("db:history", strconv.Itoa(h.ID), fmt.Sprintf(
			`{"db-catalog-version":%d,"db-control-version":%d,"db-system-id":%d,"db-version":%s}`,
			h.Catalog, h.Control, h.SystemID, quote(h.Version)))
	}
	return w.bytes(), nil
}

func (e *BackupEntry) render() []byte {
	o := object{}
	o.int("backrest-format", int64(e.Format))
	o.string("backrest-version", e.BackrestVersion)
	if len(e.Annotations) > 0 {
		o.raw("backup-annotation", renderMap(e.Annotations))
	}
	if e.ArchiveStart != "" {
		o.string("backup-archive-start", e.ArchiveStart)
	} else {
		o.raw("backup-archive-start", []byte("null"))
	}
	if e.ArchiveStop != "" {
		o.string("backup-archive-stop", e.ArchiveStop)
	} else {
		o.raw("backup-archive-stop", []byte("null"))
	}
	if e.Error != nil {
		o.bool("backup-error", *e.Error)
	}
	o.int("backup-info-repo-size", e.RepoSize)
	o.int("backup-info-repo-size-delta", e.RepoSizeDelta)
	if e.RepoSizeMap != nil {
		o.int("backup-info-repo-size-map", *e.RepoSizeMap)
	}
	if e.RepoSizeMapDelta != nil {
		o.int("backup-info-repo-size-map-delta", *e.RepoSizeMapDelta)
	}
	o.int("backup-info-size", e.Size)
	o.int("backup-info-size-delta", e.SizeDelta)
	if e.LSNStart != "" {
		o.string("backup-lsn-start", e.LSNStart)
	}
	if e.LSNStop != "" {
		o.string("backup-lsn-stop", e.LSNStop)
	}
	if e.Prior != "" {
		o.string("backup-prior", e.Prior)
	}
	if len(e.Reference) > 0 {
		b, _ := json.Marshal(e.Reference) // labels need no escapes
		o.raw("backup-reference", b)
	}
	o.int("backup-timestamp-start", e.TimeStart)
	o.int("backup-timestamp-stop", e.TimeStop)
	o.string("backup-type", string(e.Type))
	o.int("db-id", int64(e.DBID))
	o.bool("option-archive-check", e.ArchiveCheck)
	o.bool("option-archive-copy", e.ArchiveCopy)
	o.bool("option-backup-standby", e.BackupStandby)
	o.bool("option-checksum-page", e.ChecksumPage)
	o.bool("option-compress", e.Compress)
	o.bool("option-hardlink", e.Hardlink)
	o.bool("option-online", e.Online)
	return o.end()
}
