package supervisor

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"time"
)

type stopFlag struct{ v atomic.Bool }

func (f *stopFlag) set()        { f.v.Store(true) }
func (f *stopFlag) isSet() bool { return f.v.Load() }

// reply is the answer to every request on the control socket: one line of JSON.
type reply struct {
	Error  string  `json:"error,omitempty"`
	Status *Status `json:"status,omitempty"`
}

// serve answers on the control socket: one request per connection, a line
// "status", "stop", "reload" or "restart NAME". Only our own user can connect.
func (s *supervisor) serve(path string) (close func(), err error) {
	// We hold the lock of the data directory, so whoever left this is dead.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove old control socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on control socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("protect control socket: %w", err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // closed
			}
			go s.answer(c)
		}
	}()
	return func() { l.Close() }, nil
}

func (s *supervisor) answer(c net.Conn) {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return
	}
	var r reply
	verb, name, _ := strings.Cut(strings.TrimSpace(line), " ")
	switch verb {
	case "status":
	case "stop":
		select {
		case s.stop <- "asked on the control socket":
		default:
		}
	case "reload":
		_ = c.SetDeadline(time.Now().Add(reloadWithin))
		if err := s.askReload(); err != nil {
			r.Error = err.Error()
		}
	case "restart":
		if err := s.restart(name); err != nil {
			r.Error = err.Error()
		}
	default:
		r.Error = fmt.Sprintf("unknown request %q", verb)
	}
	st := s.status()
	r.Status = &st
	_ = json.NewEncoder(c).Encode(r)
}

// reloadWithin bounds a reload: PostgreSQL is asked what it thinks of the file.
const reloadWithin = 75 * time.Second

// askReload has the loop of Run judge the changed configuration and pass it on.
func (s *supervisor) askReload() error {
	done := make(chan error, 1)
	late := time.NewTimer(reloadWithin - 5*time.Second)
	defer late.Stop()
	select {
	case s.reloads <- done:
	case <-late.C:
		return errors.New("this host is starting, or stopping")
	}
	select {
	case err := <-done:
		return err
	case <-late.C:
		return errors.New("the configuration was not judged in time")
	}
}

func (s *supervisor) restart(name string) error {
	for _, c := range s.children {
		if c.Name == name {
			c.restart()
			return nil
		}
	}
	return fmt.Errorf("no process %q here; there are %s", name, strings.Join(s.names(), ", "))
}

// Ask sends a request ("status", "stop", "reload", "restart NAME") to the supervisor that
// listens on the socket and returns its status.
func Ask(ctx context.Context, socket, request string) (Status, error) {
	within := 5 * time.Second
	if request == "reload" {
		within = reloadWithin
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	c, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return Status{}, fmt.Errorf("ask supervisor: %w", err)
	}
	defer c.Close()
	if d, ok := ctx.Deadline(); ok {
		_ = c.SetDeadline(d)
	}
	if _, err := fmt.Fprintln(c, request); err != nil {
		return Status{}, fmt.Errorf("ask supervisor: %w", err)
	}
	var r reply
	if err := json.NewDecoder(c).Decode(&r); err != nil {
		return Status{}, fmt.Errorf("ask supervisor: read answer: %w", err)
	}
	if r.Error != "" {
		return Status{}, fmt.Errorf("ask supervisor: %s", r.Error)
	}
	if r.Status == nil {
		return Status{}, errors.New("ask supervisor: empty answer")
	}
	return *r.Status, nil
}
