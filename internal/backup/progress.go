package backup

import (
	"log/slog"
	"sync"
)

// Phase is what a command is doing.
type Phase string

// The phases of backups and restores.
const (
	PhasePrepare Phase = "prepare" // checks, the list of files
	PhaseCopy    Phase = "copy"
	PhaseArchive Phase = "archive" // waiting for WAL to be archived
	PhaseFinish  Phase = "finish"
	PhaseDone    Phase = "done"
)

// Progress is how far a command is. Bytes are of the database, not of the
// repository. The numbers never go back.
type Progress struct {
	Phase                 Phase
	BytesDone, BytesTotal int64
	FilesDone, FilesTotal int
	File                  string // the one finished last or being copied
}

// tracker serialises progress reports, so that a callback is never called twice
// at once.
type tracker struct {
	mu     sync.Mutex
	p      Progress
	report func(Progress)
}

func (t *tracker) update(f func(p *Progress)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f(&t.p)
	if t.report != nil {
		t.report(t.p)
	}
}

func (t *tracker) phase(ph Phase) { t.update(func(p *Progress) { p.Phase = ph }) }

// notices collects what a user should know although nothing failed.
type notices struct {
	mu   sync.Mutex
	log  *slog.Logger
	list []string
}

func newNotices(log *slog.Logger) *notices {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &notices{log: log}
}

func (n *notices) add(text string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.list = append(n.list, text)
	n.log.Warn("notice", "text", text)
}
