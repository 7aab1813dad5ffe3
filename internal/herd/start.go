package herd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"manada/internal/config"
	"manada/internal/peer"
	"manada/internal/pki"
	"manada/internal/supervisor"
	"manada/internal/verb"
)

// Running says whether the host's supervisor lives.
func (x *Host) Running() bool {
	_, held, _ := supervisor.LockedBy(x.Cfg.LockFile())
	return held
}

// start starts every host that does not run: the founder first; the others
// when they have, or can get, an identity.
func (h *Herd) start(ctx context.Context, o Options) error {
	program, err := h.program(o.Program)
	if err != nil {
		return err
	}
	for i, x := range h.Hosts {
		if err := ctx.Err(); err != nil {
			return err
		}
		if x.Running() {
			continue
		}
		if err := x.portsFree(ctx); err != nil {
			return err
		}
		if err := Prepare(x.Cfg, h.acct); err != nil {
			return err
		}
		if err := h.admit(ctx, i, x, o); err != nil {
			return err
		}
		if err := x.launch(ctx, program, h.acct, o.Environ); err != nil {
			return err
		}
		o.Say("host %s started", x.Name)
	}
	return nil
}

// admit makes the first host the founder and gives each other one that belongs
// to no herd yet a token to join with.
func (h *Herd) admit(ctx context.Context, i int, x *Host, o Options) error {
	if Member(x.Cfg) {
		return nil
	}
	if i == 0 {
		o.Say("founding the herd %s: certificates and passwords", h.File.Cluster)
		return Found(x.Cfg, h.acct)
	}
	token, err := h.token(ctx)
	if err != nil {
		return fmt.Errorf("get a token for %s: %w", x.Name, err)
	}
	return writeFile(x.Cfg.Join.TokenFile, []byte(token+"\n"), 0o600, h.acct)
}

// token asks the hosts that run for a join token until one gives it.
func (h *Herd) token(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		var answer struct {
			Token string `json:"token"`
		}
		err := h.call(ctx, verb.Token, &answer)
		if err == nil {
			return answer.Token, nil
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("%w; %s", err, h.trouble())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// call asks the herd's members, one after the other, as one of its own hosts.
func (h *Herd) call(ctx context.Context, v verb.Verb, out any) error {
	var errs []error
	for _, x := range h.Hosts {
		if !x.Cfg.HasAgent() || !x.Cfg.HasIdentity() || !x.Running() {
			continue
		}
		id, err := pki.Load(x.Cfg.IdentityDir())
		if err != nil {
			return err
		}
		cl := peer.Client{TLS: func(string) *tls.Config { return id.ClientTLS(x.Name) }}
		one, cancel := context.WithTimeout(ctx, 3*time.Second)
		err = cl.Call(one, x.Cfg.AdvertiseOn(x.Cfg.Ports.Peer), x.Name, v, nil, out)
		cancel()
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	if len(errs) == 0 {
		return errors.New("no host of the herd runs")
	}
	return errors.Join(errs...)
}

// portsFree waits a moment for the ports of a host that is about to start (the
// processes of one that was just killed may still hold them): they are part of
// what the others know of it, so they are not changed.
func (x *Host) portsFree(ctx context.Context) error {
	for end := time.Now().Add(5 * time.Second); ; {
		taken := x.portTaken()
		if taken == nil {
			return nil
		}
		if time.Now().After(end) || ctx.Err() != nil {
			return &Hinted{fmt.Errorf("start host %s: another program listens on port %d (%s of %s)", x.Name, taken.Port, taken.Key, x.Cfg.File),
				"ss -ltnp  shows which one; end it and type  manada up  again"}
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (x *Host) portTaken() *config.UsedPort {
	adopted := len(x.leftovers()) > 0 // a PostgreSQL that outlived its host goes on
	for _, u := range x.Cfg.UsedPorts() {
		if u.Key == "ports.postgresql" && adopted {
			continue
		}
		if !portFree(u.Port) {
			return &u
		}
	}
	return nil
}

// program is the path under which the hosts run this program: where it is, or a
// copy beside the data when the account cannot reach it.
func (h *Herd) program(path string) (string, error) {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", fmt.Errorf("find this program: %w", err)
	}
	if h.acct.CanExecute(path) == nil {
		return path, nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("copy this program: %w", err)
	}
	dir := filepath.Join(h.File.Data, "bin")
	if err := MakeDir(dir, 0o755, h.acct); err != nil {
		return "", err
	}
	to := filepath.Join(dir, "manada")
	return to, writeFile(to, b, 0o755, h.acct)
}

// launch starts the host's supervisor in a session of its own and waits until
// it holds its lock.
func (x *Host) launch(ctx context.Context, program string, a config.Account, environ []string) error {
	name := filepath.Join(x.Cfg.LogDir(), "run.log")
	log, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return fmt.Errorf("start host %s: %w", x.Name, err)
	}
	defer log.Close()
	if err := own(name, a); err != nil {
		return err
	}
	cmd := exec.Command(program, "run", "-c", x.Cfg.File) // without a context: it outlives us
	cmd.Stdout, cmd.Stderr, cmd.Dir, cmd.Env = log, log, "/", hostEnv(environ, a)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if os.Geteuid() == 0 && a.UID != 0 {
		groups := make([]uint32, len(a.Groups))
		for i, g := range a.Groups {
			groups[i] = uint32(g)
		}
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(a.UID), Gid: uint32(a.GID), Groups: groups}
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start host %s: %w", x.Name, err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		if h, held, _ := supervisor.LockedBy(x.Cfg.LockFile()); held && h.PID == cmd.Process.Pid {
			return nil
		}
		select {
		case err := <-ended:
			return fmt.Errorf("host %s ended at once (%v): %s", x.Name, err, lastLines(name))
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// hostEnv is the environment of a host: ours without what is meant for the
// command that was typed.
func hostEnv(environ []string, a config.Account) []string {
	env := slices.DeleteFunc(slices.Clone(environ), func(e string) bool {
		name, _, _ := strings.Cut(e, "=")
		return strings.HasPrefix(name, config.EnvPrefix) || strings.HasPrefix(name, "PG") || name == "NOTIFY_SOCKET" || name == "HOME" || name == "USER" || name == "LOGNAME"
	})
	return append(env, "HOME=/", "USER="+a.Name, "LOGNAME="+a.Name)
}

func lastLines(file string) string {
	b, err := os.ReadFile(file)
	if err != nil || len(b) == 0 {
		return "see " + file
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-4):], "\n  ")
}
