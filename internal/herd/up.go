package herd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"manada/internal/config"
)

// Options of Up and Down.
type Options struct {
	Dir     string // folder of the herd, "./herd"
	Name    string // of a new herd
	Ports   int    // the first of a new herd's ports; 0: the usual ones
	Program string // path of this program, which the hosts run
	Environ []string
	Version string
	// Say prints a line of progress.
	Say func(format string, args ...any)
	// Patience bounds the wait for the first synchronous write.
	Patience time.Duration
}

// Outcome is what Up found and did.
type Outcome int

const (
	Made    Outcome = iota // a new herd
	Started                // one that was there and did not run, or not all of it
	Ran                    // one that ran already: nothing was changed
)

// Up makes and starts a herd, or starts the one that is in the folder, and
// returns when a write through the proxy has been committed synchronously. It
// may be interrupted anywhere: what runs goes on, and the next Up completes it.
func Up(ctx context.Context, o Options) (*Herd, Outcome, error) {
	unlock, err := lockDir(&o)
	if err != nil {
		return nil, 0, err
	}
	defer unlock()
	picker := newPortPicker(o.Ports)
	defer picker.release()
	h, err := Open(o.Dir)
	outcome := Started
	if errors.Is(err, ErrNone) {
		outcome = Made
		if h, err = create(o, picker); err != nil {
			_ = os.Remove(filepath.Join(o.Dir, "herd.lock")) // nothing was made
		}
	}
	if err != nil {
		return nil, 0, err
	}
	if !h.File.Ready {
		outcome = Made
	}
	running := 0
	for _, x := range h.Hosts {
		if x.Running() {
			running++
		}
	}
	if running == len(h.Hosts) && h.File.Ready {
		return h, Ran, nil
	}
	if err := h.start(ctx, o); err != nil {
		return h, outcome, err
	}
	if err := h.awaitReady(ctx, o); err != nil {
		return h, outcome, err
	}
	if !h.File.Ready {
		h.File.Ready = true
		if err := h.writeHerd(); err != nil {
			return h, outcome, err
		}
	}
	return h, outcome, nil
}

// lockDir makes the folder and keeps a second Up or Down away from it.
func lockDir(o *Options) (func(), error) {
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("open herd: %w", err)
	}
	o.Dir = dir
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, misused("choose another folder with --dir", "make folder of the herd: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "herd.lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock herd: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, &Hinted{fmt.Errorf("another manada up or down works on %s", dir), "wait for it to end"}
	}
	return func() { f.Close() }, nil
}

// create writes a new herd down: nothing is started yet. Everything is checked
// before anything is written, and herd.json, which makes it a herd, comes last.
func create(o Options, picker *portPicker) (*Herd, error) {
	user, account, err := runner()
	if err != nil {
		return nil, err
	}
	if err := checkEmpty(o.Dir); err != nil {
		return nil, err
	}
	data, blocked, err := dataDir(o.Dir, o.Name, account)
	if err != nil {
		return nil, err
	}
	if blocked != "" {
		o.Say("user %s cannot reach %s: the data goes to %s", account.Name, blocked, data)
	}
	texts, err := configure(o.Name, data, user, picker)
	if err != nil {
		return nil, err
	}
	for _, line := range summary(picker.said) {
		o.Say("%s", line)
	}
	h := &Herd{Dir: o.Dir, File: config.HerdFile{Schema: 1, Cluster: o.Name, Data: data}}
	if err := h.writeHosts(texts, account); err != nil {
		return nil, err
	}
	if err := h.writeHerd(); err != nil {
		return nil, err
	}
	return Open(o.Dir)
}

// summary is a few lines, or one of many: whoever has a herd or a PostgreSQL here
// already finds every port in `status` and the hosts' files.
func summary(lines []string) []string {
	const most = 3
	if len(lines) <= most {
		return lines
	}
	return []string{fmt.Sprintf("%d of the usual ports are taken here: others are used, which stand in the hosts' manada.yaml (%s)", len(lines), lines[0])}
}

// runner is the user whom the configuration names, "" when it is ourselves.
func runner() (user string, a config.Account, err error) {
	if os.Geteuid() != 0 {
		return "", config.CurrentAccount(), nil
	}
	a, err = config.LookupAccount("postgres")
	if err != nil {
		return "", a, misused("install PostgreSQL, which makes it: apt install postgresql-15", "PostgreSQL does not run as root: %w", err)
	}
	return a.Name, a, nil
}

// ours are the names that a herd puts into its folder.
var ours = map[string]bool{"herd.lock": true, "master": true, "slave": true, "backup": true, "proxy": true, "bin": true, "pgpass": true}

// checkEmpty refuses a folder that holds something else, or the remains of a
// herd that lived.
func checkEmpty(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("look into folder: %w", err)
	}
	for _, e := range entries {
		if !ours[e.Name()] {
			return misused("choose another folder with --dir", "%s is not empty and holds no herd: it has %s", dir, e.Name())
		}
	}
	if lives, err := anyIdentity(dir); err != nil || lives {
		return misused("put it back, or move the folder away", "%s holds hosts of a herd but no %s", dir, config.HerdFileName)
	}
	return nil
}

type hostText struct {
	name, text string
	cfg        *config.Config
}

// configure chooses ports and renders and checks every host's configuration.
func configure(name, data, user string, picker *portPicker) (texts []hostText, err error) {
	join := ""
	var problems config.Problems
	for _, p := range plans() {
		if p.ports, err = picker.pickAll(p.name, p.roles, p.ports); err != nil {
			return nil, err
		}
		text := render(name, p, data, user, join)
		c, err := config.Parse(filepath.Join(data, p.name, config.FileName), []byte(text), nil)
		if err == nil {
			err = checkNew(c)
		}
		var ps config.Problems
		if errors.As(err, &ps) {
			problems = addOnce(problems, ps)
		} else if err != nil {
			return nil, err
		}
		texts = append(texts, hostText{p.name, text, c})
		if join == "" {
			join = c.AdvertiseOn(p.ports.Peer)
		}
	}
	if len(problems) > 0 {
		return nil, problems
	}
	return texts, nil
}

// addOnce adds what was not said of a host before: the four files are made by one
// command, and do not exist yet.
func addOnce(all, more config.Problems) config.Problems {
	for _, p := range more {
		p.Where = ""
		if p.Key == "cluster" {
			p.Where = "--name"
		}
		if !slices.ContainsFunc(all, func(q config.Problem) bool { return q.Key == p.Key && q.What == p.What }) {
			all = append(all, p)
		}
	}
	return all
}

// checkNew checks a host that is to be made; its token comes later.
func checkNew(c *config.Config) error {
	d := *c
	d.Join.TokenFile = ""
	return d.Check()
}

// writeHosts makes the hosts' folders with their configuration.
func (h *Herd) writeHosts(texts []hostText, a config.Account) error {
	if h.File.Data != h.Dir {
		if err := MakeDir(h.File.Data, 0o755, a); err != nil {
			return err
		}
		if err := writeFile(filepath.Join(h.File.Data, ownerFile), []byte(h.Dir+"\n"), 0o644, a); err != nil {
			return err
		}
	}
	for _, t := range texts {
		if err := Prepare(t.cfg, a); err != nil {
			return err
		}
		if err := writeFile(h.File.HostFile(t.name), []byte(t.text), 0o644, a); err != nil {
			return err
		}
		h.File.Hosts = append(h.File.Hosts, t.name)
	}
	return nil
}
