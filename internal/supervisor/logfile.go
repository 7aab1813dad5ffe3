package supervisor

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"manada/internal/logcut"
)

// maxLine is the longest line that is kept whole.
const maxLine = 64 << 10

// logFile is a child's log: lines are appended, and cut over to a new file at
// a size. A full disk loses lines, it never stops the child.
type logFile struct {
	path string
	max  int64
	keep int

	mu   sync.Mutex
	f    *os.File
	size int64
	last string
}

func openLog(path string, max int64, keep int) (*logFile, error) {
	l := &logFile{path: path, max: max, keep: keep}
	return l, l.open()
}

func (l *logFile) open() error {
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return fmt.Errorf("open log: %w", err)
	}
	l.f, l.size = f, st.Size()
	return nil
}

// line appends one line, without its end.
func (l *logFile) line(s string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if strings.TrimSpace(s) != "" {
		l.last = s
	}
	if l.max > 0 && l.size > 0 && l.size+int64(len(s)) > l.max {
		l.rotate()
	}
	if l.f == nil && l.open() != nil {
		return
	}
	n, _ := io.WriteString(l.f, s+"\n")
	l.size += int64(n)
}

// rotate begins a new file.
func (l *logFile) rotate() {
	if l.f != nil {
		l.f.Close()
		l.f = nil
	}
	logcut.Shift(l.path, l.keep)
	_ = l.open()
}

func (l *logFile) lastLine() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

func (l *logFile) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f != nil {
		l.f.Close()
		l.f = nil
	}
}

// pump copies lines from a child until it and everything that inherited its
// output has closed it.
func (l *logFile) pump(r io.ReadCloser, name string, mirror io.Writer) {
	defer r.Close()
	in := bufio.NewReaderSize(r, maxLine)
	for {
		b, err := in.ReadSlice('\n')
		if len(b) > 0 {
			s := strings.TrimRight(string(b), "\r\n")
			l.line(s)
			if mirror != nil {
				_, _ = fmt.Fprintf(mirror, "%-8s %s\n", name, s)
			}
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
	}
}
