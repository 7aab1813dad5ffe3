package blob

import (
	"encoding/json"
	"errors"
	"net/http"
	"time"
)

// The protocol between Remote and Handler, below the base URL:
//
//	GET    /blob/<name>               the file; Range: bytes=a-b for a part
//	HEAD   /blob/<name>               Stat
//	PUT    /blob/<name>               the body becomes the file; If-None-Match: * for NoOverwrite
//	DELETE /blob/<name>[?all=1]       Delete, DeleteAll
//	PUT    /link/<name>?target=<t>    Link
//	GET    /list/<dir>[?recursive=1]  a JSON array of entries
//	POST   /lock/<name>               holds the lock for as long as the response is open: a line with its token, then one every few seconds
//	DELETE /lock/<name>?token=<t>     gives it up, and answers when it is free
//
// Errors are a status and a JSON object {"error": ..., "code": ...}.
const (
	pathBlob = "/blob/"
	pathLink = "/link/"
	pathList = "/list/"
	pathLock = "/lock/"

	headerDir   = "X-Manada-Dir"
	headerMTime = "X-Manada-Mtime"
	headerCode  = "X-Manada-Code" // the code of an error, for answers without a body
)

// lockBeat is how often the server writes into the response of a lock. A lock
// whose client has vanished without a word is free after a few of them, when
// the kernel gives up the connection; a client that hears none for three of
// them counts it as lost.
const lockBeat = 5 * time.Second

type wireInfo struct {
	Name string `json:"name"`
	Dir  bool   `json:"dir,omitempty"`
	Size int64  `json:"size"`
	Mod  int64  `json:"mtime_ms"`
}

type wireError struct {
	Error string `json:"error"`
	Code  string `json:"code,omitempty"`
}

// errorCodes map the errors that callers distinguish over the wire and back.
var errorCodes = []struct {
	code   string
	status int
	err    error
}{
	{"not_exist", http.StatusNotFound, ErrNotExist},
	{"exist", http.StatusPreconditionFailed, ErrExist},
	{"locked", http.StatusLocked, ErrLocked},
	{"forbidden", http.StatusForbidden, ErrForbidden},
	{"no_space", http.StatusInsufficientStorage, ErrNoSpace},
	{"bad_name", http.StatusBadRequest, ErrBadName},
}

func writeError(w http.ResponseWriter, err error) {
	status, body := http.StatusInternalServerError, wireError{Error: err.Error()}
	for _, c := range errorCodes {
		if errors.Is(err, c.err) {
			status, body.Code = c.status, c.code
			break
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set(headerCode, body.Code)
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(body)
}
