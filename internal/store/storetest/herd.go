package storetest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"manada/internal/store"
	"manada/internal/store/voter"
)

const voterEnv = "MANADA_TEST_VOTER"

// Main is for TestMain: a test binary that was started as a voter is one.
func Main(m *testing.M) int {
	raw := os.Getenv(voterEnv)
	if raw == "" {
		return m.Run()
	}
	var p params
	if err := json.Unmarshal([]byte(raw), &p); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	cfg, err := p.config()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	cfg.Ready = func() { fmt.Println("ready") }
	if err := voter.Run(ctx, cfg); err != nil {
		fmt.Fprintln(os.Stderr, "voter:", err)
		return 1
	}
	return 0
}

// params travel to the voter's process.
type params struct {
	Name, Dir, Client, Peer string
	SocketDir               string // of a short path
	CA, Cert, Key           string
	Found                   bool
	Join                    []string
	JoinTimeout             time.Duration
	Recover                 bool
}

func (p params) config() (voter.Config, error) {
	front, err := serverTLS(p.CA, p.Cert, p.Key)
	return voter.Config{
		Name: p.Name, Dir: p.Dir, SocketDir: p.SocketDir, ServerTLS: front, ListenClient: p.Client, ListenPeer: p.Peer,
		AdvertiseClient: "https://" + p.Client, AdvertisePeer: "https://" + p.Peer,
		CertFile: p.Cert, KeyFile: p.Key, CAFile: p.CA,
		Found: p.Found, MayFound: func(context.Context) error { return nil },
		Join: p.Join, JoinTimeout: p.JoinTimeout, Recover: p.Recover,
	}, err
}

// Herd is a set of hosts with a voter each.
type Herd struct {
	Certs Certs
	Hosts map[string]*Host
}

// Host is a place where a voter can run: its folder and addresses stay the same
// over restarts.
type Host struct {
	Dir    string
	Client string // URL

	p    params
	cmd  *exec.Cmd
	out  *bytes.Buffer // its standard error; read it only after it ended
	done chan struct{}
}

// NewHerd makes hosts; nothing runs yet.
func NewHerd(t testing.TB, names ...string) *Herd {
	t.Helper()
	h := &Herd{Certs: NewCerts(t), Hosts: map[string]*Host{}}
	root := t.TempDir()
	for _, n := range names {
		p := params{
			SocketDir: SocketDir(t),
			Name:      n, Dir: filepath.Join(root, n), Client: FreePort(t), Peer: FreePort(t),
			CA: h.Certs.CA, Cert: h.Certs.Cert, Key: h.Certs.Key, JoinTimeout: 30 * time.Second,
		}
		h.Hosts[n] = &Host{Dir: p.Dir, Client: "https://" + p.Client, p: p}
	}
	return h
}

// SocketDir makes a folder of a short path and removes it after the test.
func SocketDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "v")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// Config is the voter configuration of a host, to run it in this process.
func (h *Herd) Config(t testing.TB, name string) voter.Config {
	t.Helper()
	c, err := h.Hosts[name].p.config()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Found starts a host's voter as the first of a new store.
func (h *Herd) Found(t testing.TB, name string) {
	t.Helper()
	p := h.Hosts[name].p
	p.Found = true
	h.launch(t, name, p)
	h.AwaitReady(t, name)
}

// Join starts a host's voter with the others' addresses and does not wait.
func (h *Herd) Join(t testing.TB, name string, timeout time.Duration, others ...string) {
	t.Helper()
	p := h.Hosts[name].p
	p.JoinTimeout = timeout
	for _, o := range others {
		p.Join = append(p.Join, h.Hosts[o].Client)
	}
	h.launch(t, name, p)
}

// Restart starts a host's voter with the data it has and does not wait.
func (h *Herd) Restart(t testing.TB, name string) {
	t.Helper()
	h.launch(t, name, h.Hosts[name].p)
}

// Recover starts a host's voter as the only survivor.
func (h *Herd) Recover(t testing.TB, name string) {
	t.Helper()
	p := h.Hosts[name].p
	p.Recover = true
	h.launch(t, name, p)
	h.AwaitReady(t, name)
}

func (h *Herd) launch(t testing.TB, name string, p params) {
	t.Helper()
	env, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	host := h.Hosts[name]
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), voterEnv+"="+string(env))
	host.out = &bytes.Buffer{}
	cmd.Stderr = host.out
	ready := &lineWaiter{got: make(chan struct{})}
	cmd.Stdout = ready
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { _ = cmd.Wait(); close(done) }()
	host.cmd, host.done = cmd, done
	host.cmd.Stdout = ready
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-done })
}

// AwaitReady waits until the voter serves clients.
func (h *Herd) AwaitReady(t testing.TB, name string) {
	t.Helper()
	host := h.Hosts[name]
	select {
	case <-host.cmd.Stdout.(*lineWaiter).got:
	case <-host.done:
		t.Fatalf("voter %s ended: %s", name, host.out)
	case <-time.After(30 * time.Second):
		t.Fatalf("voter %s is not ready after 30 s", name)
	}
}

// AwaitEnd waits until the voter's process ended by itself and returns what it
// said.
func (h *Herd) AwaitEnd(t testing.TB, name string) string {
	t.Helper()
	host := h.Hosts[name]
	select {
	case <-host.done:
		return host.out.String()
	case <-time.After(30 * time.Second):
		t.Fatalf("voter %s still runs", name)
	}
	return ""
}

// Kill ends a voter as a power cut would.
func (h *Herd) Kill(t testing.TB, name string) {
	t.Helper()
	host := h.Hosts[name]
	if err := host.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
	<-host.done
}

// Signal sends a signal to the voter's process (SIGSTOP: a host that drops
// packets, as seen from outside; it returns when no thread runs any more, which
// on a busy machine is long after the signal was sent).
func (h *Herd) Signal(t testing.TB, name string, s syscall.Signal) {
	t.Helper()
	p := h.Hosts[name].cmd.Process
	if err := p.Signal(s); err != nil {
		t.Fatal(err)
	}
	if s == syscall.SIGSTOP {
		Eventually(t, "a halt of "+name, func() error { return halted(p.Pid) })
	}
}

// halted says which thread of a process still runs.
func halted(pid int) error {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil || len(threads) == 0 {
		return fmt.Errorf("no threads of %d: %v", pid, err)
	}
	for _, file := range threads {
		b, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if _, after, ok := strings.Cut(string(b), ") "); !ok || after[0] != 'T' {
			return fmt.Errorf("%s: %s", file, b)
		}
	}
	return nil
}

// LoseDisk removes the folder of a host whose voter does not run.
func (h *Herd) LoseDisk(t testing.TB, name string) {
	t.Helper()
	if err := os.RemoveAll(h.Hosts[name].Dir); err != nil {
		t.Fatal(err)
	}
}

// Client opens a client of the hosts, in this order of preference.
func (h *Herd) Client(t testing.TB, clusterName string, hosts ...string) *store.Client {
	t.Helper()
	var urls []string
	for _, n := range hosts {
		urls = append(urls, h.Hosts[n].Client)
	}
	c, err := store.Open(context.Background(), store.Config{Cluster: clusterName, Endpoints: urls, TLS: h.Certs.TLS})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// AwaitVoters waits until the store has that many voters, all of them up.
func AwaitVoters(t testing.TB, c store.Store, n int) store.Status {
	t.Helper()
	var st store.Status
	Eventually(t, fmt.Sprintf("%d voters up", n), func() error {
		var err error
		if st, err = c.Status(context.Background()); err != nil {
			return err
		}
		if st.Voters != n || st.Up != n || st.Leader == "" {
			return fmt.Errorf("%d of %d voters, leader %q", st.Up, st.Voters, st.Leader)
		}
		return nil
	})
	return st
}

// Eventually repeats f until it succeeds, for at most 30 s.
func Eventually(t testing.TB, what string, f func() error) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 30 s: %v", what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// lineWaiter closes got at the first line "ready".
type lineWaiter struct {
	buf  strings.Builder
	got  chan struct{}
	seen bool
}

func (w *lineWaiter) Write(b []byte) (int, error) {
	w.buf.Write(b)
	if !w.seen && strings.Contains(w.buf.String(), "ready\n") {
		w.seen = true
		close(w.got)
	}
	return len(b), nil
}
