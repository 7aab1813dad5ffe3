package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/klauspost/compress/gzip"

	"manada/internal/blob"
)

// load reads a file or, when that is missing or damaged, its copy. The error is
// of the file itself unless only the copy was there.
func load[T any](ctx context.Context, s blob.Storage, name string, parse func([]byte) (*T, error)) (*T, error) {
	var first error
	for _, n := range []string{name, name + CopySuffix} {
		b, err := blob.Get(ctx, s, n)
		if err == nil {
			var v *T
			if v, err = parse(b); err == nil {
				return v, nil
			}
		}
		if first == nil || errors.Is(first, blob.ErrNotExist) {
			first = err
		}
		if ctx.Err() != nil || errors.Is(err, ErrUnsupported) {
			break
		}
	}
	return nil, fmt.Errorf("load %s: %w", name, first)
}

// saveBoth writes a file and its copy, so that a reader always finds a whole one.
func saveBoth(ctx context.Context, s blob.Storage, name string, data []byte) error {
	for _, n := range []string{name, name + CopySuffix} {
		if err := s.Put(ctx, n, bytes.NewReader(data), blob.PutOptions{}); err != nil {
			return fmt.Errorf("save %s: %w", n, err)
		}
	}
	return nil
}

// LoadArchiveInfo reads a stanza's archive.info; blob.ErrNotExist when there is none.
func LoadArchiveInfo(ctx context.Context, s blob.Storage, stanza string) (*ArchiveInfo, error) {
	return load(ctx, s, ArchivePath(stanza, ArchiveInfoFile), ParseArchiveInfo)
}

// LoadBackupInfo reads a stanza's backup.info; blob.ErrNotExist when there is none.
func LoadBackupInfo(ctx context.Context, s blob.Storage, stanza string) (*BackupInfo, error) {
	return load(ctx, s, BackupPath(stanza, BackupInfoFile), ParseBackupInfo)
}

// LoadManifest reads the manifest of a finished backup. The copy alone does not
// make a backup: it is written first.
func LoadManifest(ctx context.Context, s blob.Storage, stanza, label string) (*Manifest, error) {
	name := BackupPath(stanza, label, ManifestFile)
	if _, err := s.Stat(ctx, name); err != nil {
		return nil, fmt.Errorf("load manifest of %s: %w", label, err)
	}
	m, err := load(ctx, s, name, ParseManifest)
	if err != nil {
		return nil, err
	}
	if m.Label != label {
		return nil, fmt.Errorf("load manifest of %s: %w: it is of %s", label, ErrFormat, m.Label)
	}
	if err := m.Check(); err != nil {
		return nil, fmt.Errorf("load manifest: %w", err)
	}
	return m, nil
}

// SaveArchiveInfo writes a stanza's archive.info.
func SaveArchiveInfo(ctx context.Context, s blob.Storage, stanza string, a *ArchiveInfo) error {
	a.BackrestVersion = Version
	b, err := a.Render()
	if err != nil {
		return err
	}
	return saveBoth(ctx, s, ArchivePath(stanza, ArchiveInfoFile), b)
}

// SaveBackupInfo writes a stanza's backup.info.
func SaveBackupInfo(ctx context.Context, s blob.Storage, stanza string, i *BackupInfo) error {
	i.BackrestVersion = Version
	b, err := i.Render()
	if err != nil {
		return err
	}
	return saveBoth(ctx, s, BackupPath(stanza, BackupInfoFile), b)
}

// SaveManifest writes a backup's manifest: the copy, then the manifest, which
// makes the backup valid.
func SaveManifest(ctx context.Context, s blob.Storage, stanza string, m *Manifest) error {
	data, err := m.Render()
	if err != nil {
		return err
	}
	name := BackupPath(stanza, m.Label, ManifestFile)
	for _, n := range []string{name + CopySuffix, name} {
		if err := s.Put(ctx, n, bytes.NewReader(data), blob.PutOptions{}); err != nil {
			return fmt.Errorf("save %s: %w", n, err)
		}
	}
	return nil
}

// SaveHistory writes the copy of a backup's manifest that outlives the backup.
func SaveHistory(ctx context.Context, s blob.Storage, stanza string, m *Manifest) error {
	data, err := m.Render()
	if err != nil {
		return err
	}
	var gz bytes.Buffer
	z, err := gzip.NewWriterLevel(&gz, gzip.BestCompression)
	if err != nil {
		return err
	}
	if _, err := z.Write(data); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	name := HistoryPath(stanza, m.Label)
	if err := s.Put(ctx, name, &gz, blob.PutOptions{}); err != nil {
		return fmt.Errorf("save %s: %w", name, err)
	}
	return nil
}
