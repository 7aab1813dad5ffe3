package backup

import (
	"errors"
	"fmt"
)

// Codes of pgBackRest's errors; the command line exits with them.
const (
	CodeChecksum         = 26
	CodeFormat           = 29
	CodeOption           = 31
	CodePgRunning        = 38
	CodeFileWrite        = 39
	CodePathNotEmpty     = 40
	CodeArchiveMismatch  = 44
	CodeArchiveDuplicate = 45
	CodeVersion          = 46
	CodeLock             = 50
	CodeBackupMismatch   = 51
	CodeFileMissing      = 55
	CodeDBConnect        = 56
	CodeDBQuery          = 57
	CodeDBMismatch       = 58
	CodeFeature          = 67
	CodeArchiveCommand   = 68
	CodeLinkDestination  = 70
	CodePathMissing      = 73
	CodeBackupSet        = 75
	CodeTablespaceMap    = 76
	CodeArchiveTimeout   = 82
	CodeArchiveDisabled  = 87
	CodeClock            = 106
)

// ErrNotFound is what ArchiveGet wraps when the archive does not have the file;
// PostgreSQL takes that as the end of the archive.
var ErrNotFound = errors.New("not in the archive")

// Error is a failure that a user can do something about.
type Error struct {
	Code int    // pgBackRest's code for it
	Text string // what failed and why
	Hint string // what to do next; may be empty
	Err  error  // what caused it; may be nil
}

// Error gives the text, the cause and the hint, in pgBackRest's layout.
func (e *Error) Error() string {
	s := e.Text
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	if e.Hint != "" {
		s += "\nHINT: " + e.Hint
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// Code is the pgBackRest code of an error, 0 when it has none.
func Code(err error) int {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return 0
}

func fail(code int, hint, format string, args ...any) *Error {
	return &Error{Code: code, Hint: hint, Text: fmt.Sprintf(format, args...)}
}
