package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
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

func (a *app) newProgress(what string) *progress {
	p := &progress{what: what, w: a.err, every: 10 * time.Second, began: time.Now(), last: time.Now()}
	if f, ok := a.err.(*os.File); ok && term.IsTerminal(int(f.Fd())) && a.env("TERM") != "dumb" {
		p.bar, p.every, p.last = true, 100*time.Millisecond, time.Time{}
	}
	return p
}

// show tells how far the work is; total is 0 while that is not known.
func (p *progress) show(phase string, done, total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.last) < p.every {
		return
	}
	p.last = time.Now()
	line := fmt.Sprintf("%s: %s", p.what, phase)
	if total > 0 {
		line = fmt.Sprintf("%s: %s %3d %%  %s of %s%s", p.what, phase, 100*done/total, bytesText(done), bytesText(total), p.rate(done, total))
	}
	if !p.bar {
		fmt.Fprintln(p.w, line)
		return
	}
	const width = 20
	full := 0
	if total > 0 {
		full = int(min(width*done/total, width))
	}
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
