package process

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"manada/internal/cluster"
	"manada/internal/peer"
)

// Job is a backup that runs or the last one that ended on this host.
type Job struct {
	ID         string     `json:"id"`
	Node       string     `json:"node"`
	Type       string     `json:"type"`
	State      string     `json:"state"` // running, done or failed
	Phase      string     `json:"phase"`
	BytesDone  int64      `json:"bytes_done"`
	BytesTotal int64      `json:"bytes_total"`
	Label      string     `json:"label"` // of a done one
	Prior      string     `json:"prior"`
	Size       int64      `json:"size_bytes"`
	Copied     int64      `json:"copied_bytes"`
	RepoSize   int64      `json:"repo_bytes"`
	Notices    []string   `json:"notices"`
	Error      string     `json:"error"`
	Hint       string     `json:"hint"`
	Start      time.Time  `json:"start"`
	Stop       *time.Time `json:"stop"`
}

// jobs runs one backup at a time, in a process of its own: copying and
// compressing must not delay the agent's beats.
type jobs struct {
	mu  sync.Mutex
	now *Job
}

func (j *jobs) get() *Job {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.now == nil {
		return nil
	}
	c := *j.now
	return &c
}

func (j *jobs) update(f func(*Job)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	f(j.now)
}

func (j *jobs) begin(node, kind string) (*Job, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.now != nil && j.now.State == "running" {
		return nil, peer.Refuse(http.StatusConflict, "backup_running", "wait for it; manada backups shows it when it is done",
			"a %s backup has been running on %s since %s", j.now.Type, node, j.now.Start.Format(time.TimeOnly))
	}
	id := make([]byte, 6)
	_, _ = rand.Read(id)
	j.now = &Job{ID: hex.EncodeToString(id), Node: node, Type: kind, State: "running", Phase: "prepare", Start: time.Now().UTC()}
	c := *j.now
	return &c, nil
}

// getBackup answers GET /v1/backup.
func (h *hostAgent) getBackup(w http.ResponseWriter, _ *http.Request) {
	if j := h.jobs.get(); j != nil && (j.State == "running" || h.agent.Self().Leads != 0) {
		peer.WriteJSON(w, j)
		return
	}
	peer.WriteError(w, peer.Refuse(http.StatusNotFound, peer.CodeNotFound, "", "no backup has run on %s", h.cfg.Node))
}

// postBackup answers POST /v1/backup: the primary starts one, any other host
// passes the wish on.
func (h *hostAgent) postBackup(w http.ResponseWriter, r *http.Request) {
	var q struct {
		Type string `json:"type"`
	}
	if err := peer.ReadJSON(r, &q); err != nil {
		peer.WriteError(w, err)
		return
	}
	st := h.agent.Status()
	switch {
	case st.Primary == "":
		peer.WriteError(w, peer.Refuse(http.StatusConflict, "no_primary", "manada status", "there is no primary to back up"))
	case st.Primary != h.cfg.Node:
		h.passOn(w, r, st.Primary, q)
	default:
		j, err := h.startBackup(q.Type)
		if err != nil {
			peer.WriteError(w, err)
			return
		}
		peer.WriteJSON(w, j)
	}
}

func (h *hostAgent) passOn(w http.ResponseWriter, r *http.Request, node string, in any) {
	addr, ok := h.agent.PeerAddr(node)
	if !ok {
		peer.WriteError(w, peer.Refuse(http.StatusServiceUnavailable, peer.CodeUnavailable, "manada status", "the address of %s is not known", node))
		return
	}
	c := peer.Client{TLS: h.id.TLSFor}
	var j Job
	if err := c.Call(r.Context(), addr, node, r.Method, r.URL.Path, in, &j); err != nil {
		peer.WriteError(w, err)
		return
	}
	peer.WriteJSON(w, j)
}

func (h *hostAgent) startBackup(kind string) (*Job, error) {
	if _, err := h.repo.open(); err != nil {
		return nil, peer.Refuse(http.StatusConflict, "no_repository", "give one host of the herd the role repository", "%v", err)
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	j, err := h.jobs.begin(h.cfg.Node, kind)
	if err != nil {
		return nil, err
	}
	// Detached from the request: interrupting the command does not end the backup.
	cmd := exec.CommandContext(h.life, exe, "backup-worker", "-c", h.cfg.File, "--type", kind, "--socket", h.agent.SocketDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		h.jobs.update(func(j *Job) { j.State, j.Error = "failed", err.Error() })
		return nil, fmt.Errorf("start the backup: %w", err)
	}
	_ = syscall.Setpriority(syscall.PRIO_PROCESS, cmd.Process.Pid, 10)
	go h.followBackup(cmd, bufio.NewScanner(out))
	return j, nil
}

// followBackup reads the worker's progress and tells how it ended.
func (h *hostAgent) followBackup(cmd *exec.Cmd, lines *bufio.Scanner) {
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var m workerMessage
		if json.Unmarshal(lines.Bytes(), &m) == nil {
			h.jobs.update(m.apply)
		}
	}
	err := cmd.Wait()
	now := time.Now().UTC()
	h.jobs.update(func(j *Job) {
		j.Stop = &now
		switch {
		case j.State != "running":
		case j.Error != "":
			j.State = "failed"
		default:
			j.State, j.Error = "failed", fmt.Sprintf("the backup process ended without a result: %v", err)
		}
	})
	j := h.jobs.get()
	if j.State == "done" {
		h.agent.Event("backup_done", j.Type+" backup "+j.Label)
	} else {
		h.agent.Event("backup_failed", j.Type+" backup failed: "+j.Error)
	}
	h.refreshBackups(h.life)
}

// watchBackups keeps what can be restored in the status.
func (h *hostAgent) watchBackups(ctx context.Context) {
	tick := time.NewTicker(3 * time.Second)
	defer tick.Stop()
	first := time.After(time.Second)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-first:
		}
		h.refreshBackups(ctx)
	}
}

func (h *hostAgent) refreshBackups(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	b := h.repo.status(ctx)
	if b == nil {
		return // no repository is known yet
	}
	if j := h.jobs.get(); j != nil && j.State == "failed" {
		b.BackupErr = j.Error
	}
	if n, ok := h.agent.SegmentsWaiting(); ok {
		b.WaitingSegments = &n
	}
	h.agent.SetBackups(b)
}

// workerMessage is a line of the worker: progress, or the result.
type workerMessage struct {
	Phase      string   `json:"phase,omitempty"`
	BytesDone  int64    `json:"bytes_done,omitempty"`
	BytesTotal int64    `json:"bytes_total,omitempty"`
	Done       bool     `json:"done,omitempty"`
	Type       string   `json:"type,omitempty"`
	Label      string   `json:"label,omitempty"`
	Prior      string   `json:"prior,omitempty"`
	Size       int64    `json:"size,omitempty"`
	Copied     int64    `json:"copied,omitempty"`
	RepoSize   int64    `json:"repo_size,omitempty"`
	Notices    []string `json:"notices,omitempty"`
	Error      string   `json:"error,omitempty"`
	Hint       string   `json:"hint,omitempty"`
}

func (m workerMessage) apply(j *Job) {
	switch {
	case m.Error != "":
		j.State, j.Error, j.Hint = "failed", m.Error, m.Hint
	case m.Done:
		j.State, j.Phase, j.Type, j.Label, j.Prior = "done", "done", m.Type, m.Label, m.Prior
		j.Size, j.Copied, j.RepoSize, j.Notices = m.Size, m.Copied, m.RepoSize, m.Notices
	default:
		j.Phase, j.BytesDone, j.BytesTotal = m.Phase, m.BytesDone, m.BytesTotal
	}
}

var errRole = errors.New("this host has no database")

// conninfoOf is how a process on the primary's own host logs in: peer
// authentication over the unix socket, no password.
func conninfoOf(socketDir string, port int) string {
	q := func(s string) string { return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'" }
	return fmt.Sprintf("host=%s port=%d user=%s dbname=%s application_name=%s sslmode=disable", q(socketDir), port,
		cluster.RoleSuperuser, cluster.Database, q(cluster.ServiceName("backup", "worker")))
}
