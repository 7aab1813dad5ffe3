package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"manada/internal/config"
	"manada/internal/durable"
	"manada/internal/herd"
)

// accepter keeps the copy of the configuration with which this host's processes
// run. A file with mistakes never takes its place, neither at a reload nor when
// a process is started again.
type accepter struct {
	first   *config.Config // with which this host was started
	environ []string
	account config.Account
	judged  []byte // the contents that were looked at last
}

// accept judges the file and takes it, or says why not, in words that the agent
// shows. changed says that the host runs with other contents than before.
func (p *accepter) accept(ctx context.Context) (changed bool, err error) {
	data, err := os.ReadFile(p.first.File)
	if err != nil {
		return false, p.refuse(fmt.Errorf("read configuration: %w", err))
	}
	p.judged = data
	old, err := os.ReadFile(p.first.AcceptedFile())
	if err == nil && bytes.Equal(old, data) {
		return false, durable.Remove(p.first.RefusedFile())
	}
	c, err := config.Parse(p.first.File, data, p.environ)
	if err == nil {
		err = c.Check()
	}
	if err == nil && c.StateDir() != p.first.StateDir() {
		err = config.Problems{c.Problem("data_dir", "cannot change while the host runs", p.first.DataDir, "stop the host, move its data, start it")}
	}
	if err == nil {
		err = herd.Judge(ctx, c, p.account)
	}
	if err != nil {
		return false, p.refuse(err)
	}
	if err := durable.Write(p.first.AcceptedFile(), data, durable.Options{}); err != nil {
		return false, err
	}
	return true, durable.Remove(p.first.RefusedFile())
}

// refuse leaves word of why; the old configuration stays.
func (p *accepter) refuse(err error) error {
	text := err.Error()
	var ps config.Problems
	if errors.As(err, &ps) {
		text = ps[0].String()
		if len(ps) > 1 {
			text += fmt.Sprintf(" (and %d more)", len(ps)-1)
		}
	}
	return errors.Join(err, durable.Write(p.first.RefusedFile(), []byte(text+"\n"), durable.Options{}))
}

// mended says whether the file has changed since it was refused.
func (p *accepter) mended() bool {
	data, err := os.ReadFile(p.first.File)
	return err == nil && !bytes.Equal(data, p.judged)
}

// reload is supervisor.Config.Accept.
func (p *accepter) reload(asked bool) (changed bool, err error) {
	if !asked && !p.mended() {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // detached: a reload belongs to no command
	defer cancel()
	return p.accept(ctx)
}
