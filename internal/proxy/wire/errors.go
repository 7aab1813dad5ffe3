package wire

import "strings"

// Error is an ErrorResponse or NoticeResponse.
type Error struct {
	Severity string
	Code     string // SQLSTATE
	Message  string
	Detail   string
	Hint     string
	Routine  string // of PostgreSQL's source; not translated

	raw []byte // the body as received
}

// Fatal makes an error that ends a session.
func Fatal(code, message, hint string) *Error {
	return &Error{Severity: "FATAL", Code: code, Message: message, Hint: hint}
}

// Error is the message with its SQLSTATE.
func (e *Error) Error() string { return e.Message + " (SQLSTATE " + e.Code + ")" }

// Class is the first two characters of the SQLSTATE.
func (e *Error) Class() string { return e.Code[:min(2, len(e.Code))] }

// ParseError reads the body of an ErrorResponse or NoticeResponse. It keeps a
// copy, so that Append passes on every field, also those unknown here.
func ParseError(body []byte) *Error {
	e := &Error{raw: append([]byte(nil), body...)}
	severity := ""
	for rest := e.raw; len(rest) > 1 && rest[0] != 0; {
		field := rest[0]
		value, r, ok := cutString(rest[1:])
		if !ok {
			break
		}
		switch field {
		case 'S':
			severity = value
		case 'V':
			e.Severity = value
		case 'C':
			e.Code = value
		case 'M':
			e.Message = value
		case 'D':
			e.Detail = value
		case 'H':
			e.Hint = value
		case 'R':
			e.Routine = value
		}
		rest = r
	}
	if e.Severity == "" {
		e.Severity = severity
	}
	return e
}

// Append appends an ErrorResponse.
func (e *Error) Append(b []byte) []byte {
	if e.raw != nil {
		return AppendMessage(b, TypeError, e.raw)
	}
	b, at := begin(b, TypeError)
	for _, f := range []struct {
		field byte
		value string
	}{{'S', e.Severity}, {'V', e.Severity}, {'C', e.Code}, {'M', e.Message}, {'D', e.Detail}, {'H', e.Hint}} {
		if f.value != "" {
			b = cstring(append(b, f.field), f.value)
		}
	}
	return end(append(b, 0), at)
}

// Unreplicated says whether this is the warning with which PostgreSQL lets a
// commit through that no standby has confirmed (trap T7). The routine's name is
// not translated; the text is a fallback for a server that hides it.
func (e *Error) Unreplicated() bool {
	if e.Severity != "WARNING" {
		return false
	}
	return e.Routine == "SyncRepWaitForLSN" ||
		e.Code == "01000" && strings.HasPrefix(e.Message, "canceling wait for synchronous replication")
}
