package repo

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// versionRE is a major version of PostgreSQL; it becomes a part of names.
var versionRE = regexp.MustCompile(`^[1-9][0-9]?(\.[0-9])?$`)

// CheckKey says whether a name can stand before the = of a line.
func CheckKey(name string) error {
	if name == "" || strings.ContainsAny(name, "\n\r\x00") {
		return fmt.Errorf("%w: the name %q", ErrUnsupported, name)
	}
	return nil
}

// CheckValue says whether a text can be written so that every reader reads the
// same: pgBackRest escapes no other control characters than these.
func CheckValue(text string) error {
	bad := strings.ContainsFunc(text, func(c rune) bool { return c < ' ' && !strings.ContainsRune("\n\r\t\b\f", c) })
	if bad || !utf8.ValidString(text) {
		return fmt.Errorf("%w: the text %q", ErrUnsupported, text)
	}
	return nil
}

// Check says whether the manifest is one: that nothing in it leads out of its
// targets or out of the repository. It may come from somebody who wants that.
func (m *Manifest) Check() error {
	for _, check := range []func() error{m.checkDB, m.checkTargets, m.checkFiles, m.checkTree} {
		if err := check(); err != nil {
			return fmt.Errorf("backup %s: %w", m.Label, err)
		}
	}
	return nil
}

// Restorable says whether this version can restore the backup.
func (m *Manifest) Restorable() error {
	if !m.BlockIncr {
		return nil
	}
	for i := range m.Files {
		if m.Files[i].BlockMapSize != 0 {
			return fmt.Errorf("backup %s: %w: block incremental (repo-block=y), as in %s", m.Label, ErrUnsupported, m.Files[i].Name)
		}
	}
	return nil
}

func (m *Manifest) checkDB() error {
	if !versionRE.MatchString(m.DB.Version) {
		return fmt.Errorf("%w: PostgreSQL version %q", ErrFormat, m.DB.Version)
	}
	for _, l := range append(slices.Clone(m.References), m.Prior) {
		if l != "" && !IsLabel(l) {
			return fmt.Errorf("%w: it refers to %q", ErrFormat, l)
		}
	}
	return nil
}

// SpaceDir is a tablespace's directory of the backup's version of PostgreSQL, as
// a manifest names it.
func (m *Manifest) SpaceDir(oid string) string {
	return fmt.Sprintf("%s/%s/PG_%s_%d", TargetTblsp, oid, m.DB.Version, m.DB.Catalog)
}

// isOID says whether s is an oid as PostgreSQL writes it.
func isOID(s string) bool {
	n, err := strconv.ParseUint(s, 10, 32)
	return err == nil && n > 0 && strconv.FormatUint(n, 10) == s
}

// checkTargets: one PGDATA, tablespaces by their oids, and links in PGDATA.
func (m *Manifest) checkTargets() error {
	seen := map[string]bool{}
	for _, t := range m.Targets {
		bad := func(what string) error { return fmt.Errorf("%w: target %q %s", ErrFormat, t.Name, what) }
		if seen[t.Name] {
			return bad("is there twice")
		}
		seen[t.Name] = true
		if strings.ContainsAny(t.Path+t.File, "\x00") || t.Path == "" {
			return bad(fmt.Sprintf("has the path %q", t.Path))
		}
		switch {
		case t.Name == TargetData:
			if t.Link || t.TablespaceID != "" {
				return bad("is a link")
			}
		case t.TablespaceID != "":
			if !isOID(t.TablespaceID) || t.Name != TargetTblsp+"/"+t.TablespaceID {
				return bad(fmt.Sprintf("has the tablespace id %q", t.TablespaceID))
			}
			if !filepath.IsAbs(t.Path) || slices.Contains(strings.Split(t.Path, "/"), "..") {
				return bad(fmt.Sprintf("has the path %q", t.Path))
			}
		default:
			if err := checkFileName(t.Name); err != nil {
				return err
			}
			if !t.Link || !strings.HasPrefix(t.Name, TargetData+"/") || strings.HasPrefix(t.Name, TargetData+"/pg_tblspc") {
				return bad("is neither a tablespace nor a link in the data directory")
			}
			if t.File != "" && (strings.Contains(t.File, "/") || t.File == "." || t.File == "..") {
				return bad(fmt.Sprintf("has the file %q", t.File))
			}
		}
	}
	if !seen[TargetData] {
		return fmt.Errorf("%w: it has no target %s", ErrFormat, TargetData)
	}
	return nil
}

func (m *Manifest) checkFiles() error {
	for i := range m.Files {
		f := &m.Files[i]
		switch {
		case f.Size != 0 && f.SHA1 == "":
			return fmt.Errorf("%w: %s has no checksum", ErrFormat, f.Name)
		case f.Reference != "" && !IsLabel(f.Reference):
			return fmt.Errorf("%w: %s refers to %q", ErrFormat, f.Name, f.Reference)
		case f.Size < 0 || f.SizeRepo < 0 || f.SizeOriginal < 0 || f.BundleOffset < 0 || f.BundleOffset+f.SizeRepo < 0:
			return fmt.Errorf("%w: %s has an impossible size", ErrFormat, f.Name)
		}
	}
	return nil
}

// checkTree: every file, directory and link is in a target, and no name is there
// twice.
func (m *Manifest) checkTree() error {
	seen := make(map[string]bool, len(m.Files)+len(m.Paths))
	for _, name := range m.entries() {
		if err := checkFileName(name); err != nil {
			return err
		}
		if err := m.checkPlace(name); err != nil {
			return err
		}
		if seen[name] {
			return fmt.Errorf("%w: %q is there twice", ErrFormat, name)
		}
		seen[name] = true
	}
	for _, l := range m.Links {
		if err := checkFileName(l.Name); err != nil {
			return err
		}
		if l.Destination == "" || strings.ContainsRune(l.Destination, 0) {
			return fmt.Errorf("%w: link %q leads to %q", ErrFormat, l.Name, l.Destination)
		}
	}
	return nil
}

func (m *Manifest) entries() []string {
	out := make([]string, 0, len(m.Files)+len(m.Paths))
	for i := range m.Files {
		out = append(out, m.Files[i].Name)
	}
	for i := range m.Paths {
		out = append(out, m.Paths[i].Name)
	}
	return out
}

// checkPlace: what belongs to a tablespace goes under the target's name, into the
// directory of the version, and nothing goes through the links in pg_tblspc.
func (m *Manifest) checkPlace(name string) error {
	if strings.HasPrefix(name, TargetData+"/pg_tblspc/") {
		return fmt.Errorf("%w: %q lies in pg_tblspc, where only links to tablespaces are", ErrFormat, name)
	}
	rest, ok := strings.CutPrefix(name, TargetTblsp+"/")
	if !ok {
		if name == TargetTblsp || name == TargetData || strings.HasPrefix(name, TargetData+"/") {
			return nil
		}
		return fmt.Errorf("%w: file name %q", ErrFormat, name)
	}
	oid, _, inside := strings.Cut(rest, "/")
	if !slices.ContainsFunc(m.Targets, func(t Target) bool { return t.TablespaceID == oid && oid != "" }) {
		return fmt.Errorf("%w: %q lies in no tablespace of the backup", ErrFormat, name)
	}
	if dir := m.SpaceDir(oid); inside && name != dir && !strings.HasPrefix(name, dir+"/") {
		return fmt.Errorf("%w: %q lies outside of the tablespace's directory %s", ErrFormat, name, dir)
	}
	return nil
}

// checkFileName makes sure that a name is one of a target, and clean.
func checkFileName(name string) error {
	first, _, _ := strings.Cut(name, "/")
	parts := strings.Split(name, "/")
	if first != TargetData && first != TargetTblsp || slices.Contains(parts, "..") || slices.Contains(parts, ".") ||
		slices.Contains(parts, "") || strings.ContainsRune(name, 0) {
		return fmt.Errorf("%w: file name %q", ErrFormat, name)
	}
	return nil
}
