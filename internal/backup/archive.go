package backup

import (
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"manada/internal/blob"
	"manada/internal/repo"
)

// ArchiveOptions say where WAL goes and comes from.
type ArchiveOptions struct {
	Storage       blob.Storage
	Stanza        string
	Compress      repo.Compression // of new segments; "" means zst
	CompressLevel int              // 0 means the compression's default
	NoHeaderCheck bool             // do not compare the segment's system identifier with the stanza's
	Log           *slog.Logger
}

// ArchivePush stores one file that PostgreSQL wants archived; walPath is what %p
// gives, made absolute or relative to the current directory. When it returns nil
// the file is durably in the repository. A segment that is already there with
// the same content is fine (PostgreSQL repeats itself after a crash); with
// another content it is CodeArchiveDuplicate, and the archive stays as it was.
func ArchivePush(ctx context.Context, o ArchiveOptions, walPath string) error {
	name := filepath.Base(walPath)
	if err := archivePush(ctx, o, walPath, name); err != nil {
		return fmt.Errorf("archive %s: %w", name, err)
	}
	return nil
}

// loadStanza reads what the stanza's backups and its archive are of.
func loadStanza(ctx context.Context, s blob.Storage, stanza string) (*repo.BackupInfo, *repo.ArchiveInfo, error) {
	info, err := repo.LoadBackupInfo(ctx, s, stanza)
	if err != nil {
		return nil, nil, missingStanza(stanza, err)
	}
	arch, err := repo.LoadArchiveInfo(ctx, s, stanza)
	if err != nil {
		return nil, nil, missingStanza(stanza, err)
	}
	return info, arch, nil
}

// loadArchive reads what the stanza's archive is of, and the cluster that it is of
// now.
func loadArchive(ctx context.Context, s blob.Storage, stanza string) (*repo.ArchiveInfo, repo.DB, error) {
	info, err := repo.LoadArchiveInfo(ctx, s, stanza)
	if err != nil {
		return nil, repo.DB{}, missingStanza(stanza, err)
	}
	db, err := info.DB()
	return info, db, err
}

func archivePush(ctx context.Context, o ArchiveOptions, walPath, name string) error {
	kind := repo.KindOfWAL(name)
	if kind == repo.WALNone {
		return fail(CodeOption, "", "%q is not the name of a file that PostgreSQL archives", name)
	}
	_, db, err := loadArchive(ctx, o.Storage, o.Stanza)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(walPath)
	if err != nil {
		return err
	}
	if kind == repo.WALHistory || kind == repo.WALBackup {
		return pushText(ctx, o, repo.ArchivePath(o.Stanza, db.ArchiveID(), repo.WALDir(name), name), data)
	}
	if !o.NoHeaderCheck {
		size, err := CheckSegment(name, data, db)
		if err == nil && size != int64(len(data)) {
			err = fail(CodeFormat, "", "the segment has %d bytes instead of %d", len(data), size)
		}
		if err != nil {
			return err
		}
	}
	return pushSegment(ctx, o, db, name, data)
}

// pushText stores a file that goes in as it is.
func pushText(ctx context.Context, o ArchiveOptions, name string, data []byte) error {
	err := o.Storage.Put(ctx, name, bytes.NewReader(data), blob.PutOptions{NoOverwrite: true})
	if !errors.Is(err, blob.ErrExist) {
		return err
	}
	have, err := blob.Get(ctx, o.Storage, name)
	if err != nil {
		return err
	}
	if bytes.Equal(have, data) {
		return nil
	}
	return fail(CodeArchiveDuplicate, "Two clusters with the same system identifier may have been promoted to the same timeline.",
		"it is already in the archive with a different content")
}

func pushSegment(ctx context.Context, o ArchiveOptions, db repo.DB, name string, data []byte) error {
	dir := repo.ArchivePath(o.Stanza, db.ArchiveID(), repo.WALDir(name))
	sum := sha1.Sum(data)
	c := o.Compress
	if c == "" {
		c = repo.Zstd
	}
	w := repo.StoredWAL{Name: name, SHA1: hex.EncodeToString(sum[:]), Compress: c}
	have, err := findWAL(ctx, o.Storage, dir, name)
	if err != nil {
		return err
	}
	for _, h := range have {
		if h.SHA1 != w.SHA1 {
			return fail(CodeArchiveDuplicate, "Is another cluster with the same system identifier archiving to this stanza?",
				"it is already in the archive with a different checksum")
		}
	}
	if len(have) > 0 {
		newNotices(o.Log).add(fmt.Sprintf("WAL %s is already in the archive with the same checksum", name))
		return nil
	}
	level := o.CompressLevel
	if level == 0 {
		level = c.DefaultLevel()
	}
	z, err := repo.NewCompressor(c, level, false)
	if err != nil {
		return err
	}
	var buf bytes.Buffer
	z.Reset(&buf)
	if _, err := z.Write(data); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	err = o.Storage.Put(ctx, dir+"/"+w.String(), &buf, blob.PutOptions{})
	if !errors.Is(err, blob.ErrExist) {
		return err
	}
	// Somebody stored it since we looked: fine if it is the same.
	have, again := findWAL(ctx, o.Storage, dir, name)
	if again == nil && len(have) == 1 && have[0].SHA1 == w.SHA1 {
		return nil
	}
	return err
}

// findWAL gives what the archive has of a segment: more than one is damage.
func findWAL(ctx context.Context, s blob.Storage, dir, name string) ([]repo.StoredWAL, error) {
	es, err := s.List(ctx, dir, false)
	if err != nil {
		return nil, fmt.Errorf("list the archive: %w", err)
	}
	var out []repo.StoredWAL
	for _, e := range es {
		if w, ok := repo.ParseStoredWAL(e.Name); ok && w.Name == name {
			out = append(out, w)
		}
	}
	return out, nil
}

// ArchiveGet fetches one file of the archive to dest, which appears complete and
// with the checksum that it had when it was archived, or not at all. The file
// not being there is ErrNotFound.
func ArchiveGet(ctx context.Context, o ArchiveOptions, name, dest string) error {
	if err := archiveGet(ctx, o, name, dest); err != nil {
		return fmt.Errorf("get %s from the archive: %w", name, err)
	}
	return nil
}

func archiveGet(ctx context.Context, o ArchiveOptions, name, dest string) error {
	kind := repo.KindOfWAL(name)
	if kind == repo.WALNone {
		return fail(CodeOption, "", "%q is not the name of a file that PostgreSQL archives", name)
	}
	info, cur, err := loadArchive(ctx, o.Storage, o.Stanza)
	if err != nil {
		return err
	}
	// The same cluster may have more than one archive id.
	for i := len(info.History) - 1; i >= 0; i-- {
		db := info.History[i]
		if db.SystemID != cur.SystemID || db.Version != cur.Version {
			continue
		}
		dir := repo.ArchivePath(o.Stanza, db.ArchiveID(), repo.WALDir(name))
		if kind == repo.WALHistory || kind == repo.WALBackup {
			err = fetch(ctx, o.Storage, dir+"/"+name, repo.None, "", dest)
		} else {
			err = getSegment(ctx, o, dir, name, dest)
		}
		if !errors.Is(err, ErrNotFound) {
			return err
		}
	}
	return ErrNotFound
}

func getSegment(ctx context.Context, o ArchiveOptions, dir, name, dest string) error {
	have, err := findWAL(ctx, o.Storage, dir, name)
	if err != nil {
		return err
	}
	switch {
	case len(have) == 0:
		return ErrNotFound
	case len(have) > 1:
		return fail(CodeArchiveDuplicate, "Remove the one that does not belong to this cluster's history.",
			"the archive has it twice, as %s and %s", have[0], have[1])
	}
	return fetch(ctx, o.Storage, dir+"/"+have[0].String(), have[0].Compress, have[0].SHA1, dest)
}

// maxWAL is the size of the largest segment that PostgreSQL has: what claims more
// would only fill the disk.
const maxWAL = 1 << 30

// fetch writes one stored file to dest through a temporary file beside it.
func fetch(ctx context.Context, s blob.Storage, name string, c repo.Compression, sha, dest string) (err error) {
	r, err := s.Open(ctx, name, 0, -1)
	if isNotExist(err) {
		// Only this is "not found": a missing directory of dest, which is the same
		// error to the operating system, must not end a recovery early.
		return ErrNotFound
	}
	if err != nil {
		return err
	}
	defer r.Close()
	z, err := repo.NewDecompressor(c, r, false)
	if err != nil {
		return err
	}
	defer z.Close()
	f, err := os.CreateTemp(filepath.Dir(dest), "."+filepath.Base(dest)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	h := sha1.New()
	n, err := io.CopyBuffer(io.MultiWriter(f, h), io.LimitReader(z, maxWAL+1), make([]byte, 1<<18))
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	if n > maxWAL {
		return fail(CodeChecksum, "", "%s is damaged: it has more than %d bytes", name, maxWAL)
	}
	if got := hex.EncodeToString(h.Sum(nil)); sha != "" && got != sha {
		return fail(CodeChecksum, "", "%s is damaged: its content has checksum %s", name, got)
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), dest) // need not last: recovery asks for it again
}
