package repo

import (
	"encoding/json"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
)

type fileJSON struct {
	BI         int64           `json:"bi"`
	BIC        *int64          `json:"bic"`
	BIM        int64           `json:"bim"`
	BNI        uint64          `json:"bni"`
	BNO        int64           `json:"bno"`
	Checksum   string          `json:"checksum"`
	Page       *bool           `json:"checksum-page"`
	PageErrors json.RawMessage `json:"checksum-page-error"`
	Group      json.RawMessage `json:"group"`
	Mode       string          `json:"mode"`
	RCK        string          `json:"rck"`
	Reference  string          `json:"reference"`
	RepoSize   *int64          `json:"repo-size"`
	Size       int64           `json:"size"`
	SZO        *int64          `json:"szo"`
	Timestamp  int64           `json:"timestamp"`
	User       json.RawMessage `json:"user"`

	Destination string `json:"destination"` // links

	Path           string `json:"path"` // targets
	File           string `json:"file"`
	TablespaceID   string `json:"tablespace-id"`
	TablespaceName string `json:"tablespace-name"`
	Type           string `json:"type"`
}

const (
	blockFactor      = 8192
	blockChecksumMin = 6
)

// ParseManifest reads a backup.manifest.
func ParseManifest(data []byte) (*Manifest, error) {
	r := manifestReader{m: &Manifest{}}
	v, err := parseInfo(data, r.set)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", ManifestFile, err)
	}
	r.m.BackrestVersion = v
	if err := r.finish(); err != nil {
		return nil, fmt.Errorf("read %s: %w", ManifestFile, err)
	}
	return r.m, nil
}

// manifestReader collects a manifest. Defaults come after what they apply to, so
// the entries that said nothing are remembered by index until the end.
type manifestReader struct {
	m         *Manifest
	reference string
	compress  string

	fileOwner, linkOwner, pathOwner []inherit
}

type inherit struct{ group, user, mode bool }

func (r *manifestReader) set(section, key, value string) error {
	m := r.m
	switch section {
	case "cipher":
		return fmt.Errorf("%w: the repository is encrypted", ErrUnsupported)
	case "backup":
		return r.setBackup(key, value)
	case "backup:db":
		return setter(map[string]any{"db-catalog-version": &m.DB.Catalog, "db-control-version": &m.DB.Control,
			"db-id": &m.DB.ID, "db-system-id": &m.DB.SystemID, "db-version": &m.DB.Version}, key, value)
	case "backup:option":
		return r.setOption(key, value)
	case "metadata":
		return setter(map[string]any{"annotation": &m.Annotations}, key, value)
	case "db":
		d := struct {
			ID   uint32 `json:"db-id"`
			Last uint32 `json:"db-last-system-id"`
		}{}
		err := decode(value, &d)
		m.Databases = append(m.Databases, Database{Name: key, ID: d.ID, LastSystemID: d.Last})
		return err
	case "target:file:default":
		return setDefault(&m.FileDefault, key, value)
	case "target:link:default":
		return setDefault(&m.LinkDefault, key, value)
	case "target:path:default":
		return setDefault(&m.PathDefault, key, value)
	case "backup:target", "target:file", "target:link", "target:path":
		return r.setTarget(section, key, value)
	}
	return nil
}

func (r *manifestReader) setBackup(key, value string) error {
	m := r.m
	return setter(map[string]any{
		"backup-archive-start": &m.ArchiveStart, "backup-archive-stop": &m.ArchiveStop,
		"backup-block-incr": &m.BlockIncr, "backup-bundle": &m.Bundle, "backup-bundle-raw": &m.BundleRaw,
		"backup-label": &m.Label, "backup-lsn-start": &m.LSNStart, "backup-lsn-stop": &m.LSNStop,
		"backup-prior": &m.Prior, "backup-reference": &r.reference,
		"backup-timestamp-copy-start": &m.CopyStart, "backup-timestamp-start": &m.Start,
		"backup-timestamp-stop": &m.Stop, "backup-type": &m.Type,
	}, key, value)
}

func (r *manifestReader) setOption(key, value string) error {
	o := &r.m.Option
	return setter(map[string]any{
		"option-archive-check": &o.ArchiveCheck, "option-archive-copy": &o.ArchiveCopy,
		"option-backup-standby": &o.BackupStandby, "option-buffer-size": &o.BufferSize,
		"option-checksum-page": &o.ChecksumPage, "option-compress-level": &o.CompressLevel,
		"option-compress-level-network": &o.CompressLevelNetwork, "option-compress-type": &r.compress,
		"option-delta": &o.Delta, "option-hardlink": &o.Hardlink, "option-online": &o.Online,
		"option-process-max": &o.ProcessMax,
	}, key, value)
}

func setDefault(d *Default, key, value string) (err error) {
	switch key {
	case "group":
		d.Group, err = owner(json.RawMessage(value))
	case "user":
		d.User, err = owner(json.RawMessage(value))
	case "mode":
		var s string
		if err = decode(value, &s); err == nil {
			d.Mode, err = mode(s)
		}
	}
	return err
}

func owner(raw json.RawMessage) (Owner, error) {
	if string(raw) == "false" {
		return "", nil
	}
	var s string
	err := decode(string(raw), &s)
	if err == nil && s == "" {
		err = fmt.Errorf("%w: an empty owner", ErrFormat)
	}
	return Owner(s), err
}

func mode(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 8, 32)
	if err != nil {
		return 0, fmt.Errorf("%w: mode: %w", ErrFormat, err)
	}
	return uint32(n), nil
}

func (r *manifestReader) setTarget(section, key, value string) error {
	var j fileJSON
	if err := decode(value, &j); err != nil {
		return err
	}
	in := inherit{group: j.Group == nil, user: j.User == nil, mode: j.Mode == ""}
	var group, user Owner
	var bits uint32
	var err error
	if !in.group {
		if group, err = owner(j.Group); err != nil {
			return err
		}
	}
	if !in.user {
		if user, err = owner(j.User); err != nil {
			return err
		}
	}
	if !in.mode {
		if bits, err = mode(j.Mode); err != nil {
			return err
		}
	}
	m := r.m
	switch section {
	case "backup:target":
		m.Targets = append(m.Targets, Target{Name: key, Path: j.Path, File: j.File, TablespaceID: j.TablespaceID,
			TablespaceName: j.TablespaceName, Link: j.Type == "link"})
	case "target:link":
		m.Links = append(m.Links, Link{Name: key, Destination: j.Destination, Group: group, User: user})
		r.linkOwner = append(r.linkOwner, in)
	case "target:path":
		m.Paths = append(m.Paths, Path{Name: key, Group: group, User: user, Mode: bits})
		r.pathOwner = append(r.pathOwner, in)
	default:
		f, err := fileFrom(key, &j)
		if err != nil {
			return err
		}
		f.Group, f.User, f.Mode = group, user, bits
		m.Files = append(m.Files, f)
		r.fileOwner = append(r.fileOwner, in)
	}
	return nil
}

func fileFrom(name string, j *fileJSON) (File, error) {
	f := File{Name: name, Size: j.Size, SizeOriginal: j.Size, SizeRepo: j.Size, SHA1: j.Checksum, RepoSHA1: j.RCK,
		Timestamp: j.Timestamp, Reference: j.Reference, BundleID: j.BNI, BundleOffset: j.BNO, PageErrors: j.PageErrors}
	if j.RepoSize != nil {
		f.SizeRepo = *j.RepoSize
	}
	if j.SZO != nil {
		f.SizeOriginal = *j.SZO
	}
	if j.Page != nil {
		f.ChecksumPage, f.ChecksumPageError = true, !*j.Page
	}
	if f.Size < 0 || f.SizeRepo < 0 || f.BundleOffset < 0 || f.SizeOriginal < 0 {
		return f, fmt.Errorf("%w: a negative size", ErrFormat)
	}
	if j.BI != 0 {
		f.BlockSize, f.BlockMapSize, f.BlockChecksumSize = j.BI*blockFactor, j.BIM, blockChecksumMin
		if j.BIC != nil {
			f.BlockChecksumSize = *j.BIC
		}
	}
	return f, nil
}

// finish applies the defaults and puts everything in order.
func (r *manifestReader) finish() error {
	m := r.m
	for i, in := range r.fileOwner {
		applyDefault(&m.Files[i].Group, &m.Files[i].User, &m.Files[i].Mode, in, m.FileDefault)
	}
	for i, in := range r.pathOwner {
		applyDefault(&m.Paths[i].Group, &m.Paths[i].User, &m.Paths[i].Mode, in, m.PathDefault)
	}
	for i, in := range r.linkOwner {
		applyDefault(&m.Links[i].Group, &m.Links[i].User, new(uint32), in, m.LinkDefault)
	}
	var err error
	if r.compress == "" {
		r.compress = string(None)
	}
	if m.Option.Compress, err = ParseCompression(r.compress); err != nil {
		return err
	}
	if !IsLabel(m.Label) {
		return fmt.Errorf("%w: backup label %q", ErrFormat, m.Label)
	}
	sort.Slice(m.Files, func(i, j int) bool { return m.Files[i].Name < m.Files[j].Name })
	sort.Slice(m.Paths, func(i, j int) bool { return m.Paths[i].Name < m.Paths[j].Name })
	sort.Slice(m.Links, func(i, j int) bool { return m.Links[i].Name < m.Links[j].Name })
	if r.reference != "" {
		m.References = strings.Split(r.reference, ",")
		return nil
	}
	return m.rebuildReferences()
}

func applyDefault(group, user *Owner, mode *uint32, in inherit, d Default) {
	if in.group {
		*group = d.Group
	}
	if in.user {
		*user = d.User
	}
	if in.mode {
		*mode = d.Mode
	}
}

// rebuildReferences makes the list that pgBackRest before 2.42 did not write.
func (m *Manifest) rebuildReferences() error {
	seen := map[string]bool{m.Label: true}
	for i := range m.Files {
		if ref := m.Files[i].Reference; ref != "" {
			seen[ref] = true
		}
	}
	for l := range seen {
		m.References = append(m.References, l)
	}
	slices.Sort(m.References)
	return nil
}
