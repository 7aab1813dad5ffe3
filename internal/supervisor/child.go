package supervisor

import (
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// child keeps one process running.
type child struct {
	Child
	cfg   Config
	procs *procs
	log   *logFile

	stop    chan struct{} // closed: end it and do not start it again
	kick    chan struct{} // start it again now (restart on request)
	done    chan struct{} // closed when loop has returned
	started chan struct{} // closed when it was started once
	killed  bool          // it had to be killed; read after done

	mu     sync.Mutex
	status ChildStatus
}

func newChild(c Child, cfg Config, p *procs) (*child, error) {
	if c.StopWithin == 0 {
		c.StopWithin = 10 * time.Second
	}
	l, err := openLog(filepath.Join(cfg.LogDir, c.Name+".log"), cfg.MaxSize, cfg.Keep)
	if err != nil {
		return nil, err
	}
	return &child{Child: c, cfg: cfg, procs: p, log: l, stop: make(chan struct{}), kick: make(chan struct{}, 1),
		done: make(chan struct{}), started: make(chan struct{}),
		status: ChildStatus{Name: c.Name, State: Waiting, Since: time.Now()}}, nil
}

// loop starts the process until it is told to stop.
func (c *child) loop() {
	defer close(c.done)
	defer c.log.close()
	pause := c.cfg.FirstPause
	for first := true; ; first = false {
		began := time.Now()
		ended, err := c.start(first)
		exit := ""
		if err == nil {
			exit = c.watch(ended)
		} else {
			exit = err.Error()
			c.log.line("manada: " + exit)
		}
		if c.stopping() || c.Once && exit == exitText(0) {
			c.set(Stopped, 0, exit)
			return
		}
		if time.Since(began) >= c.cfg.Settled {
			pause = c.cfg.FirstPause
		}
		c.set(Waiting, 0, exit)
		c.cfg.Log.Warn("process ended", "process", c.Name, "exit", exit, "last_line", c.log.lastLine(), "restart_in_ms", pause.Milliseconds())
		if !c.sleep(pause) {
			c.set(Stopped, 0, exit)
			return
		}
		pause = min(2*pause, c.cfg.LongestPause)
	}
}

func (c *child) start(first bool) (<-chan syscall.WaitStatus, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	pid, ended, err := c.procs.start(c.Command, c.cfg.Env, w)
	w.Close()
	if err != nil {
		r.Close()
		return nil, err
	}
	go c.log.pump(r, c.Name, c.cfg.Mirror)
	c.mu.Lock()
	c.status.State, c.status.PID, c.status.Since = Running, pid, time.Now()
	if !first {
		c.status.Restarts++
	}
	c.mu.Unlock()
	if first {
		close(c.started)
	}
	c.cfg.Log.Info("process started", "process", c.Name, "pid", pid)
	return ended, nil
}

// watch waits for the end of the running process, which it brings about when
// told to stop or to restart.
func (c *child) watch(ended <-chan syscall.WaitStatus) string {
	sig := syscall.SIGTERM
	select {
	case ws := <-ended:
		return exitText(ws)
	case <-c.stop:
	case <-c.kick:
		sig = syscall.SIGINT
	}
	pid := c.pid()
	c.set(Stopping, pid, "")
	c.procs.signal(pid, sig)
	timer := time.NewTimer(c.StopWithin)
	defer timer.Stop()
	select {
	case ws := <-ended:
		return exitText(ws)
	case <-timer.C:
	}
	c.cfg.Log.Error("process did not stop in time and is killed", "process", c.Name, "pid", pid, "deadline_ms", c.StopWithin.Milliseconds())
	c.killed = true
	c.procs.signal(pid, syscall.SIGKILL)
	return exitText(<-ended)
}

func (c *child) stopping() bool {
	select {
	case <-c.stop:
		return true
	default:
		return false
	}
}

// sleep pauses before a restart; false when told to stop meanwhile.
func (c *child) sleep(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-c.kick:
	case <-c.stop:
		return false
	}
	return true
}

func (c *child) pid() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status.PID
}

func (c *child) set(s State, pid int, exit string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status.State, c.status.PID, c.status.Since = s, pid, time.Now()
	if exit != "" {
		c.status.LastExit, c.status.LastLine = exit, c.log.lastLine()
	}
}

func (c *child) snapshot() ChildStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status
}

// restart ends the process and starts it again at once.
func (c *child) restart() {
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

// end stops the process for good and waits until it is gone; StopWithin bounds
// the wait.
func (c *child) end() {
	close(c.stop)
	<-c.done
}
