package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"manada/internal/config"
	"manada/internal/herd"
	"manada/internal/peer"
	"manada/internal/pki"
	"manada/internal/supervisor"
)

// Exit codes of native commands.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitDegraded    = 3
	exitNoPrimary   = 4
	exitRefused     = 5
	exitUnknown     = 6
	exitInterrupted = 130
	exitBroken      = 255 // of archive-get alone: PostgreSQL gives up above 125
)

var exitMeaning = map[int]string{
	exitOK:          "done",
	exitFailed:      "failed",
	exitUsage:       "wrong usage or configuration",
	exitDegraded:    "degraded",
	exitNoPrimary:   "no primary",
	exitRefused:     "refused because data would be lost",
	exitUnknown:     "outcome unknown (timed out)",
	exitInterrupted: "interrupted",
}

// exits is the EXIT STATUS section of a command's help.
func exits(codes ...int) string {
	var b strings.Builder
	b.WriteString("\n\nEXIT STATUS")
	for _, c := range append([]int{exitOK}, append(codes, exitInterrupted)...) {
		fmt.Fprintf(&b, "\n  %3d  %s", c, exitMeaning[c])
	}
	return b.String()
}

// failure is an error with its exit code and what to type next.
type failure struct {
	code int
	err  error
	hint string
}

func (f *failure) Error() string {
	if f.err == nil {
		return exitMeaning[f.code]
	}
	return f.err.Error()
}

func (f *failure) Unwrap() error { return f.err }

func fail(code int, hint, format string, args ...any) error {
	return &failure{code, fmt.Errorf(format, args...), hint}
}

func usage(hint, format string, args ...any) error { return fail(exitUsage, hint, format, args...) }

// quiet ends a command with a code after it has said everything itself.
func quiet(code int) error { return &failure{code: code} }

// codes of refusals that agents answer, with the exit code they become.
var refusals = map[string]int{
	"no_primary":         exitNoPrimary,
	"data_loss":          exitRefused,
	"would_lose_data":    exitRefused,
	"not_synchronous":    exitRefused,
	"no_room":            exitRefused,
	"unknown_node":       exitUsage,
	"no_database":        exitUsage,
	peer.CodeUnknown:     exitUnknown,
	"timeout":            exitUnknown,
	peer.CodeBadRequest:  exitUsage,
	peer.CodeUnavailable: exitFailed,
}

// explain finds message, hint and exit code of an error.
func explain(err error) (code int, message, hint string) {
	code, message = exitFailed, err.Error()
	var f *failure
	var p *peer.Error
	var ps config.Problems
	switch {
	case errors.As(err, &f):
		code, hint = f.code, f.hint
		if f.err == nil {
			return code, "", ""
		}
	case errors.As(err, &ps):
		code, hint = exitUsage, "manada config check  shows every problem; deploy/manada.example.yaml explains every key"
	case errors.As(err, &p):
		if c, ok := refusals[p.Code]; ok {
			code = c
		}
		message, hint = strings.Replace(message, p.Error(), p.Message, 1), p.Hint
	case errors.Is(err, herd.ErrUsage):
		code = exitUsage
	case errors.Is(err, config.ErrNoHerd):
		code = exitUsage
		hint = "make one here with  manada up  or name one with -c FILE, --dir DIR or $MANADA_CONFIG"
	case errors.Is(err, context.Canceled):
		code, message = exitInterrupted, "interrupted"
	case errors.Is(err, context.DeadlineExceeded):
		code, hint = exitUnknown, "manada status  says what became of it"
	}
	if hint == "" {
		message, hint = hintOf(err, message)
	}
	return code, message, hint
}

// hintOf finds what to type next in an error of another package.
func hintOf(err error, message string) (text, hint string) {
	var h *herd.Hinted
	var j *pki.JoinError
	switch {
	case errors.As(err, &h):
		return message, h.Hint
	case errors.As(err, &j):
		return strings.Replace(message, " ("+j.Hint+")", "", 1), j.Hint
	case errors.Is(err, os.ErrPermission):
		return message, "run it as root, or as the user that runs Manada"
	case errors.Is(err, supervisor.ErrHeld):
		return message, "this host runs already: manada status;  manada down or systemctl stop manada ends it"
	}
	return message, ""
}

// exitCode is the code with which an error ends a command.
func exitCode(err error) int { code, _, _ := explain(err); return code }

// report prints an error once and returns the exit code.
func report(w io.Writer, err error, asJSON bool) int {
	code, message, hint := explain(err)
	if message == "" {
		return code
	}
	if asJSON {
		b, _ := json.Marshal(map[string]any{"schema": 1, "error": message, "hint": hint, "exit": code})
		fmt.Fprintln(w, string(b))
		return code
	}
	fmt.Fprintln(w, "manada: "+message)
	if hint != "" {
		fmt.Fprintln(w, "hint: "+hint)
	}
	return code
}
