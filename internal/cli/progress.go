package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"manada/internal/backup"
)

// progress tells of long work on standard error: a bar on a terminal, else a
// line every ten seconds.
type progress struct {
	what  string
	w     io.Writer
	bar   bool
	every time.Duration

	mu    sync.Mutex
	began time.Time
	last  time.Time
	drawn bool
}

// follow does something long with the repository and shows how far it is; whoever
// interrupts it is told what that means.
func (a *app) follow(ctx context.Context, what string, do func(*progress) error, interrupted func() error) error {
	p := a.newProgress(what)
	err := do(p)
	p.end()
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return interrupted()
	}
	return backupFailure(err)
}

func (a *app) newProgress(what string) *progress {
	p := &progress{what: what, w: a.err, every: 10 * time.Second, began: time.Now(), last: time.Now()}
	if f, ok := a.err.(*os.File); ok && term.IsTerminal(int(f.Fd())) && a.env("TERM") != "dumb" {
		p.bar, p.every, p.last = true, 100*time.Millisecond, time.Time{}
	}
	return p
}

// show tells how far the work is; total is 0 while that is not known.
func (p *progress) show(phase string, done, total int64) {
	if total <= 0 {
		p.draw(phase, 0)
		return
	}
	p.mu.Lock()
	rate := p.rate(done, total)
	p.mu.Unlock()
	p.draw(fmt.Sprintf("%s %3d %%  %s of %s%s", phase, 100*done/total, bytesText(done), bytesText(total), rate), int(100*done/total))
}

// bytes shows a backup's or a restore's own word.
func (p *progress) bytes(x backup.Progress) { p.show(string(x.Phase), x.BytesDone, x.BytesTotal) }

// said shows what somebody else says of the work: how far it is, in per cent,
// stands at the end of the text if it is known.
func (p *progress) said(text string) {
	percent := 0
	if head, ok := strings.CutSuffix(text, "%"); ok {
		percent, _ = strconv.Atoi(strings.TrimSpace(head[strings.LastIndex(head, " ")+1:]))
	}
	p.draw(text, percent)
}

// draw writes a line if it is time, on a terminal behind the bar.
func (p *progress) draw(line string, percent int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.last) < p.every {
		return
	}
	p.last = time.Now()
	line = p.what + ": " + line
	if !p.bar {
		fmt.Fprintln(p.w, line)
		return
	}
	const width = 20
	full := min(width*max(percent, 0)/100, width)
	fmt.Fprintf(p.w, "\r\x1b[K[%s%s] %s", strings.Repeat("#", full), strings.Repeat(".", width-full), line)
	p.drawn = true
}

// rate is the speed and the time that is left at it.
func (p *progress) rate(done, total int64) string {
	s := time.Since(p.began).Seconds()
	if done == 0 || s < 0.5 {
		return ""
	}
	left := time.Duration(float64(total-done) / (float64(done) / s) * float64(time.Second)).Round(time.Second)
	return fmt.Sprintf(", %s/s, %s left", bytesText(int64(float64(done)/s)), left)
}

// end removes the bar.
func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.drawn {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.drawn = false
	}
}
