package pgbackrest

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"manada/internal/backup"
)

// logger writes messages as pgBackRest does: up to one level on standard error,
// bare, and from there up to another on standard output, with time and process.
type logger struct {
	out, err        io.Writer
	console, stderr int
	stamps          bool
	now             func() time.Time
}

func level(name string) int { return slices.Index(logLevels, name) }

func newLogger(out, errw io.Writer) *logger {
	return &logger{out: out, err: errw, console: level("warn"), stderr: level("warn"), now: time.Now}
}

func (l *logger) set(console, stderr string, stamps bool) {
	if console != "" {
		l.console = level(console)
	}
	if stderr != "" {
		l.stderr = level(stderr)
	}
	l.stamps = stamps
}

func (l *logger) write(name string, code int, text string) {
	at := level(name)
	head := fmt.Sprintf("%6s: ", strings.ToUpper(name))
	w := l.out
	switch {
	case at <= l.stderr:
		w, head = l.err, strings.TrimLeft(head, " ")
	case at > l.console:
		return
	default:
		head = "P00 " + head
		if l.stamps {
			head = l.now().Format("2006-01-02 15:04:05.000 ") + head
		}
	}
	indent := strings.Repeat(" ", len(head))
	if code != 0 {
		head += fmt.Sprintf("[%03d]: ", code)
	}
	fmt.Fprintln(w, head+strings.ReplaceAll(text, "\n", "\n"+indent))
}

func (l *logger) info(format string, args ...any) { l.write("info", 0, fmt.Sprintf(format, args...)) }
func (l *logger) warn(format string, args ...any) { l.write("warn", 0, fmt.Sprintf(format, args...)) }

func (l *logger) detail(format string, args ...any) {
	l.write("detail", 0, fmt.Sprintf(format, args...))
}

func (l *logger) failure(e *backup.Error) {
	text := e.Text
	if e.Hint != "" {
		text += "\nHINT: " + strings.ReplaceAll(e.Hint, "\n", "\nHINT: ")
	}
	l.write("error", e.Code, text)
}
