package repo

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Render writes a backup.manifest. Databases, files, links and paths are written
// in ascending order whatever order they are in.
func (m *Manifest) Render() ([]byte, error) {
	m.sort()
	if err := m.Writable(); err != nil {
		return nil, fmt.Errorf("write %s of %s: %w", ManifestFile, m.Label, err)
	}
	w := newInfoWriter(m.BackrestVersion)
	m.writeBackup(w)
	m.writeOption(w)
	m.writeTargets(w)
	for i := range m.Files {
		w.put("target:file", m.Files[i].Name, string(m.Files[i].render(m.FileDefault)))
	}
	writeDefault(w, "target:file:default", m.FileDefault, true)
	for _, l := range m.Links {
		o := object{}
		o.string("destination", l.Destination)
		o.owner("group", l.Group, m.LinkDefault.Group)
		o.owner("user", l.User, m.LinkDefault.User)
		w.put("target:link", l.Name, string(o.end()))
	}
	if len(m.Links) > 0 {
		writeDefault(w, "target:link:default", m.LinkDefault, false)
	}
	for _, p := range m.Paths {
		o := object{}
		o.owner("group", p.Group, m.PathDefault.Group)
		o.mode(p.Mode, m.PathDefault.Mode)
		o.owner("user", p.User, m.PathDefault.User)
		w.put("target:path", p.Name, string(o.end()))
	}
	writeDefault(w, "target:path:default", m.PathDefault, true)
	return w.bytes(), nil
}

func (m *Manifest) sort() {
	slices.SortFunc(m.Files, func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(m.Links, func(a, b Link) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(m.Paths, func(a, b Path) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(m.Targets, func(a, b Target) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(m.Databases, func(a, b Database) int { return strings.Compare(a.Name, b.Name) })
}

// Writable refuses names and texts that the grammar cannot hold.
func (m *Manifest) Writable() error {
	for _, name := range m.keys() {
		if err := CheckKey(name); err != nil {
			return err
		}
	}
	for _, text := range m.values() {
		if err := CheckValue(text); err != nil {
			return err
		}
	}
	return nil
}

// keys are the names that stand before the = of a line.
func (m *Manifest) keys() []string {
	out := make([]string, 0, len(m.Files)+len(m.Paths))
	for i := range m.Files {
		out = append(out, m.Files[i].Name)
	}
	for i := range m.Paths {
		out = append(out, m.Paths[i].Name)
	}
	for _, l := range m.Links {
		out = append(out, l.Name)
	}
	for _, t := range m.Targets {
		out = append(out, t.Name)
	}
	for _, d := range m.Databases {
		out = append(out, d.Name)
	}
	return out
}

// values are the texts that somebody else than this program chose.
func (m *Manifest) values() []string {
	var out []string
	for _, l := range m.Links {
		out = append(out, l.Destination)
	}
	for _, t := range m.Targets {
		out = append(out, t.Path, t.File, t.TablespaceName)
	}
	for k, v := range m.Annotations {
		out = append(out, k, v)
	}
	return out
}

func (m *Manifest) writeBackup(w *infoWriter) {
	const s = "backup"
	text := func(key, v string) {
		if v != "" {
			w.put(s, key, quote(v))
		}
	}
	flag := func(key string, v bool) {
		if v {
			w.put(s, key, "true")
		}
	}
	text("backup-archive-start", m.ArchiveStart)
	text("backup-archive-stop", m.ArchiveStop)
	flag("backup-block-incr", m.BlockIncr)
	flag("backup-bundle", m.Bundle)
	flag("backup-bundle-raw", m.BundleRaw)
	text("backup-label", m.Label)
	text("backup-lsn-start", m.LSNStart)
	text("backup-lsn-stop", m.LSNStop)
	text("backup-prior", m.Prior)
	text("backup-reference", strings.Join(m.References, ","))
	w.put(s, "backup-timestamp-copy-start", strconv.FormatInt(m.CopyStart, 10))
	w.put(s, "backup-timestamp-start", strconv.FormatInt(m.Start, 10))
	w.put(s, "backup-timestamp-stop", strconv.FormatInt(m.Stop, 10))
	text("backup-type", string(m.Type))
	w.put("backup:db", "db-catalog-version", strconv.FormatUint(uint64(m.DB.Catalog), 10))
	w.put("backup:db", "db-control-version", strconv.FormatUint(uint64(m.DB.Control), 10))
	w.put("backup:db", "db-id", strconv.Itoa(m.DB.ID))
	w.put("backup:db", "db-system-id", strconv.FormatUint(m.DB.SystemID, 10))
	w.put("backup:db", "db-version", quote(m.DB.Version))
}

func (m *Manifest) writeOption(w *infoWriter) {
	const s = "backup:option"
	o := &m.Option
	flag := func(key string, v *bool) {
		if v != nil {
			w.put(s, key, boolean(*v))
		}
	}
	number := func(key string, v *int) {
		if v != nil {
			w.put(s, key, strconv.Itoa(*v))
		}
	}
	compressed := o.Compress != None
	flag("option-archive-check", &o.ArchiveCheck)
	flag("option-archive-copy", &o.ArchiveCopy)
	flag("option-backup-standby", o.BackupStandby)
	if o.BufferSize != nil {
		w.put(s, "option-buffer-size", strconv.FormatInt(*o.BufferSize, 10))
	}
	flag("option-checksum-page", o.ChecksumPage)
	flag("option-compress", &compressed)
	number("option-compress-level", o.CompressLevel)
	number("option-compress-level-network", o.CompressLevelNetwork)
	w.put(s, "option-compress-type", quote(string(o.Compress)))
	flag("option-delta", o.Delta)
	flag("option-hardlink", &o.Hardlink)
	flag("option-online", &o.Online)
	number("option-process-max", o.ProcessMax)
}

func (m *Manifest) writeTargets(w *infoWriter) {
	for _, t := range m.Targets {
		o := object{}
		if t.File != "" {
			o.string("file", t.File)
		}
		o.string("path", t.Path)
		if t.TablespaceID != "" {
			o.string("tablespace-id", t.TablespaceID)
		}
		if t.TablespaceName != "" {
			o.string("tablespace-name", t.TablespaceName)
		}
		kind := "path"
		if t.Link {
			kind = "link"
		}
		o.string("type", kind)
		w.put("backup:target", t.Name, string(o.end()))
	}
	for _, d := range m.Databases {
		w.put("db", d.Name, fmt.Sprintf(`{"db-id":%d,"db-last-system-id":%d}`, d.ID, d.LastSystemID))
	}
	if len(m.Annotations) > 0 {
		w.put("metadata", "annotation", string(renderMap(m.Annotations)))
	}
}

func (f *File) render(d Default) []byte {
	o := object{b: make([]byte, 0, 256)}
	if f.BlockSize != 0 {
		o.int("bi", f.BlockSize/blockFactor)
		if f.BlockChecksumSize != blockChecksumMin {
			o.int("bic", f.BlockChecksumSize)
		}
		if f.BlockMapSize != 0 {
			o.int("bim", f.BlockMapSize)
		}
	}
	if f.BundleID != 0 {
		o.int("bni", int64(f.BundleID))
		if f.BundleOffset != 0 {
			o.int("bno", f.BundleOffset)
		}
	}
	if f.Size != 0 && f.SHA1 != "" {
		o.string("checksum", f.SHA1)
	}
	if f.ChecksumPage {
		o.bool("checksum-page", !f.ChecksumPageError)
		if f.PageErrors != nil {
			o.raw("checksum-page-error", f.PageErrors)
		}
	}
	o.owner("group", f.Group, d.Group)
	o.mode(f.Mode, d.Mode)
	if f.RepoSHA1 != "" {
		o.string("rck", f.RepoSHA1)
	}
	if f.Reference != "" {
		o.string("reference", f.Reference)
	}
	if f.SizeRepo != f.Size {
		o.int("repo-size", f.SizeRepo)
	}
	o.int("size", f.Size)
	if f.SizeOriginal != f.Size {
		o.int("szo", f.SizeOriginal)
	}
	o.int("timestamp", f.Timestamp)
	o.owner("user", f.User, d.User)
	return o.end()
}

func (o *object) owner(key string, v, def Owner) {
	switch {
	case v == def:
	case v == "":
		o.raw(key, []byte("false"))
	default:
		o.string(key, string(v))
	}
}

func (o *object) mode(v, def uint32) {
	if v != def {
		o.string("mode", fmt.Sprintf("%04o", v))
	}
}

func writeDefault(w *infoWriter, section string, d Default, withMode bool) {
	name := func(v Owner) string {
		if v == "" {
			return "false"
		}
		return quote(string(v))
	}
	w.put(section, "group", name(d.Group))
	if withMode {
		w.put(section, "mode", quote(fmt.Sprintf("%04o", d.Mode)))
	}
	w.put(section, "user", name(d.User))
}
