// Package logcut bounds log files: FILE, and FILE.1, FILE.2 ... that are older.
//
// Not here: who writes them. The supervisor cuts what it writes itself; the logs
// of PostgreSQL and of its guardian outlive it and are cut under their writers.
package logcut

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// Shift renames FILE to FILE.1, FILE.1 to FILE.2 and so on; of older ones keep
// are left. 0 keeps none: FILE goes.
func Shift(path string, keep int) { shift(path, keep, 0) }

// shift is Shift from the nth older file on.
func shift(path string, keep, n int) {
	os.Remove(older(path, keep))
	for i := keep - 1; i >= n; i-- {
		_ = os.Rename(older(path, i), older(path, i+1)) // need not last: a log
	}
}

func older(path string, n int) string {
	if n == 0 {
		return path
	}
	return fmt.Sprintf("%s.%d", path, n)
}

// Cut empties a file of more than max bytes that another process appends to
// (O_APPEND), after copying it to FILE.1. What that process writes in the moment
// between the two is lost.
func Cut(path string, max int64, keep int) (cut bool, err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("cut log: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || max <= 0 || st.Size() <= max {
		return false, err
	}
	if keep > 0 {
		if err := save(f, st, path, keep); err != nil {
			// A full disk: rather no old log than no room for WAL.
			return true, errors.Join(fmt.Errorf("cut log: %w", err), f.Truncate(0))
		}
	}
	return true, f.Truncate(0)
}

// save copies the log to FILE.1, the older ones shifted.
func save(f io.Reader, st fs.FileInfo, path string, keep int) error {
	shift(path, keep, 1)
	to, err := os.OpenFile(older(path, 1), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, st.Mode().Perm())
	if err != nil {
		return err
	}
	_, err = io.Copy(to, f)
	if err = errors.Join(err, to.Close()); err != nil {
		os.Remove(to.Name())
	}
	return err
}
