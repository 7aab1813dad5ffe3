package supervisor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"manada/internal/guardian/procfs"
)

// The test binary plays the supervisor and its children too: Run waits for
// every child of its process, so it cannot share one with the tests.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "act" {
		act(os.Args[2:])
		return
	}
	os.Exit(m.Run())
}

type setup struct {
	Dir      string
	Children map[string][]string // name -> what it acts
	Order    []string
	MaxSize  int64
	StopMS   int
	Orphan   bool   // be a subreaper, as PID 1 would
	Before   string // "wait": never ready; "fail": cannot be
}

func act(args []string) {
	term := make(chan os.Signal, 4)
	signal.Notify(term, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT)
	switch args[0] {
	case "supervisor":
		actSupervisor(args[1])
	case "live": // says its name, notes signals in a file
		fmt.Println("alive", args[1])
		for s := range term {
			note(args[2], args[1]+" "+s.String())
			if s != syscall.SIGHUP {
				return
			}
		}
	case "die":
		fmt.Println("dying of", args[1])
		os.Exit(7)
	case "stubborn":
		note(args[1], "stubborn "+fmt.Sprint(os.Getpid()))
		select {} // takes SIGTERM and goes on
	case "parent": // leaves an orphan behind that ends at once
		cmd := exec.Command("/bin/sh", "-c", "sleep 0.1 & echo orphan $! >>"+args[1])
		_ = cmd.Run()
		<-term
	case "chatter":
		for i := range 200 {
			fmt.Printf("line %03d %s\n", i, strings.Repeat("x", 90))
		}
		<-term
	}
}

func note(file, line string) {
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	defer f.Close()
	fmt.Fprintln(f, line)
}

func actSupervisor(config string) {
	var s setup
	if err := json.Unmarshal([]byte(config), &s); err != nil {
		panic(err)
	}
	if s.Orphan {
		// PR_SET_CHILD_SUBREAPER
		if _, _, e := syscall.RawSyscall(syscall.SYS_PRCTL, 36, 1, 0); e != 0 {
			panic(e)
		}
	}
	sigs := make(chan os.Signal, 4)
	signal.Notify(sigs, syscall.SIGTERM, syscall.SIGHUP)
	conv := make(chan syscall.Signal, 4)
	go func() {
		for s := range sigs {
			conv <- s.(syscall.Signal)
		}
	}()
	cfg := Config{LockFile: filepath.Join(s.Dir, "pid"), Socket: filepath.Join(s.Dir, "sock"), LogDir: s.Dir, MaxSize: s.MaxSize, Keep: 2,
		Mirror: os.Stdout, Env: os.Environ(), Signals: conv, FirstPause: 20 * time.Millisecond, LongestPause: 80 * time.Millisecond,
		AfterStop: func() error { note(filepath.Join(s.Dir, "notes"), "after stop"); return nil }}
	switch s.Before {
	case "wait":
		cfg.Before = func(ctx context.Context) error {
			note(filepath.Join(s.Dir, "notes"), "waits")
			<-ctx.Done()
			return ctx.Err()
		}
	case "fail":
		cfg.Before = func(context.Context) error { return errors.New("belongs to no herd") }
	}
	exe, _ := os.Executable()
	for _, name := range s.Order {
		cfg.Children = append(cfg.Children, Child{Name: name, Command: append([]string{exe, "act"}, s.Children[name]...), StopWithin: time.Duration(s.StopMS) * time.Millisecond})
	}
	if err := Run(context.Background(), cfg); err != nil {
		fmt.Fprintln(os.Stderr, "manada:", err)
		os.Exit(1)
	}
}

type running struct {
	t   *testing.T
	cmd *exec.Cmd
	out bytes.Buffer
	dir string
}

func startSupervisor(t *testing.T, s setup) *running {
	t.Helper()
	if s.StopMS == 0 {
		s.StopMS = 5000
	}
	b, _ := json.Marshal(s)
	r := &running{t: t, cmd: exec.Command(os.Args[0], "act", "supervisor", string(b)), dir: s.Dir}
	r.cmd.Stdout, r.cmd.Stderr = &r.out, &r.out
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = r.cmd.Process.Kill()
		_ = r.cmd.Wait()
	})
	return r
}

func (r *running) status() Status {
	st, err := Ask(r.t.Context(), filepath.Join(r.dir, "sock"), "status")
	if err != nil {
		return Status{}
	}
	return st
}

func (r *running) child(name string) ChildStatus {
	for _, c := range r.status().Children {
		if c.Name == name {
			return c
		}
	}
	return ChildStatus{}
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if cond() {
			return
		}
	}
	t.Fatalf("did not happen: %s", what)
}

// stop sends SIGTERM and returns the exit code.
func (r *running) stop() int {
	_ = r.cmd.Process.Signal(syscall.SIGTERM)
	_ = r.cmd.Wait()
	return r.cmd.ProcessState.ExitCode()
}

func notes(t *testing.T, dir string) string {
	b, err := os.ReadFile(filepath.Join(dir, "notes"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return string(b)
}

func gone(pid int) bool {
	p, err := procfs.Read(pid)
	return err != nil || p.Dead()
}

func twoLive(dir string) setup {
	n := filepath.Join(dir, "notes")
	return setup{Dir: dir, Order: []string{"store", "agent"}, Children: map[string][]string{"store": {"live", "store", n}, "agent": {"live", "agent", n}}}
}

func TestStopsInReverseOrderAndPassesReloadOn(t *testing.T) {
	dir := t.TempDir()
	r := startSupervisor(t, twoLive(dir))
	said := func(name string) bool {
		b, _ := os.ReadFile(filepath.Join(dir, name+".log"))
		return string(b) == "alive "+name+"\n"
	}
	eventually(t, "both run and have said so in their own logs", func() bool { return said("store") && said("agent") })
	_ = r.cmd.Process.Signal(syscall.SIGHUP)
	eventually(t, "both got the reload", func() bool { return strings.Count(notes(t, dir), "hangup") == 2 })
	if code := r.stop(); code != 0 {
		t.Errorf("exit code %d: %s", code, r.out.String())
	}
	if got := notes(t, dir); !strings.HasSuffix(got, "agent terminated\nstore terminated\nafter stop\n") {
		t.Errorf("order of the stop:\n%s", got)
	}
	if !strings.Contains(r.out.String(), "agent    alive agent\n") {
		t.Errorf("the mirror says %q", r.out.String())
	}
}

func TestRestartsWithGrowingPauses(t *testing.T) {
	dir := t.TempDir()
	s := twoLive(dir)
	s.Order = append(s.Order, "proxy")
	s.Children["proxy"] = []string{"die", "boredom"}
	r := startSupervisor(t, s)
	eventually(t, "the dying child was started again three times", func() bool { return r.child("proxy").Restarts >= 3 })
	eventually(t, "status says why", func() bool {
		c := r.child("proxy")
		return c.LastExit == "exit status 7" && c.LastLine == "dying of boredom"
	})
	before := r.child("agent")
	if before.Restarts != 0 || before.State != Running {
		t.Errorf("a healthy child was disturbed: %+v", before)
	}
	if _, err := Ask(t.Context(), filepath.Join(dir, "sock"), "restart agent"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it was told to end alone", func() bool { return strings.Contains(notes(t, dir), "agent interrupt\n") })
	eventually(t, "the agent has a new process", func() bool {
		c := r.child("agent")
		return c.State == Running && c.PID != before.PID && gone(before.PID)
	})
	if _, err := Ask(t.Context(), filepath.Join(dir, "sock"), "restart nobody"); err == nil || !strings.Contains(err.Error(), "store, agent, proxy") {
		t.Errorf("restart of nobody: %v", err)
	}
	if _, err := Ask(t.Context(), filepath.Join(dir, "sock"), "stop"); err != nil {
		t.Fatal(err)
	}
	if err := r.cmd.Wait(); err != nil {
		t.Errorf("stopped on request: %v\n%s", err, r.out.String())
	}
}

func TestKillsWhatDoesNotStop(t *testing.T) {
	dir := t.TempDir()
	n := filepath.Join(dir, "notes")
	r := startSupervisor(t, setup{Dir: dir, Order: []string{"agent"}, StopMS: 100, Children: map[string][]string{"agent": {"stubborn", n}}})
	eventually(t, "it runs", func() bool { return notes(t, dir) != "" })
	pid := r.child("agent").PID
	if code := r.stop(); code != 1 {
		t.Errorf("exit code %d", code)
	}
	if !gone(pid) || !strings.Contains(r.out.String(), "agent did not stop in time and was killed") {
		t.Errorf("gone %v, said %s", gone(pid), r.out.String())
	}
}

func TestChildrenDieWithTheSupervisor(t *testing.T) {
	dir := t.TempDir()
	r := startSupervisor(t, twoLive(dir))
	eventually(t, "both run", func() bool { return r.child("store").PID != 0 && r.child("agent").PID != 0 })
	pids := []int{r.child("store").PID, r.child("agent").PID}
	_ = r.cmd.Process.Kill()
	_ = r.cmd.Wait()
	eventually(t, "both are gone", func() bool { return gone(pids[0]) && gone(pids[1]) })
	// Its lock and its socket are no obstacle for the next one.
	next := startSupervisor(t, twoLive(dir))
	eventually(t, "a new one runs", func() bool { return next.child("agent").State == Running })
}

func TestSecondSupervisorIsRefused(t *testing.T) {
	dir := t.TempDir()
	r := startSupervisor(t, twoLive(dir))
	eventually(t, "the first runs", func() bool { return r.child("agent").State == Running })
	second := startSupervisor(t, twoLive(dir))
	_ = second.cmd.Wait()
	want := fmt.Sprintf("another supervisor runs on this data directory: pid %d", r.cmd.Process.Pid)
	if code := second.cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(second.out.String(), want) {
		t.Errorf("exit code %d: %s", code, second.out.String())
	}
	h, held, err := LockedBy(filepath.Join(dir, "pid"))
	if err != nil || !held || h.PID != r.cmd.Process.Pid || !h.Alive() {
		t.Errorf("holder %+v %v %v", h, held, err)
	}
	r.stop()
	if _, held, err := LockedBy(filepath.Join(dir, "pid")); err != nil || held {
		t.Errorf("held after the end: %v %v", held, err)
	}
}

func TestReapsOrphans(t *testing.T) {
	dir := t.TempDir()
	n := filepath.Join(dir, "notes")
	r := startSupervisor(t, setup{Dir: dir, Order: []string{"agent"}, Orphan: true, Children: map[string][]string{"agent": {"parent", n}}})
	pid := 0
	eventually(t, "the orphan is noted", func() bool {
		_, err := fmt.Sscanf(notes(t, dir), "orphan %d", &pid)
		return err == nil
	})
	eventually(t, "the orphan is not even a zombie", func() bool {
		_, err := procfs.Read(pid)
		return errors.Is(err, os.ErrNotExist)
	})
	r.stop()
}

func TestLogIsCut(t *testing.T) {
	dir := t.TempDir()
	r := startSupervisor(t, setup{Dir: dir, Order: []string{"agent"}, MaxSize: 4000, Children: map[string][]string{"agent": {"chatter"}}})
	eventually(t, "the last line is there", func() bool {
		b, _ := os.ReadFile(filepath.Join(dir, "agent.log"))
		return bytes.Contains(b, []byte("line 199"))
	})
	r.stop()
	files, _ := filepath.Glob(filepath.Join(dir, "agent.log*"))
	if len(files) != 3 {
		t.Errorf("files: %v", files)
	}
	for _, f := range files {
		if st, err := os.Stat(f); err != nil || st.Size() > 4000 {
			t.Errorf("%s: %v %v", f, st.Size(), err)
		}
	}
}

func TestWaitsBeforeStarting(t *testing.T) {
	dir := t.TempDir()
	s := twoLive(dir)
	s.Before = "wait"
	r := startSupervisor(t, s)
	eventually(t, "it waits", func() bool { return notes(t, dir) == "waits\n" })
	if c := r.child("agent"); c.State != Waiting || c.PID != 0 {
		t.Errorf("started too early: %+v", c)
	}
	if code := r.stop(); code != 0 {
		t.Errorf("exit code %d: %s", code, r.out.String())
	}
	s.Before = "fail"
	r = startSupervisor(t, s)
	_ = r.cmd.Wait()
	if code := r.cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(r.out.String(), "belongs to no herd") {
		t.Errorf("exit code %d: %s", code, r.out.String())
	}
}
