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

	"github.com/jackc/pgx/v5/pgconn"

	"manada/internal/cluster"
	"manada/internal/peer"
	"manada/internal/pgconnect"
	"manada/internal/verb"
)

// Job is a backup that runs or the last one that ended on this host.
type Job struct {
	ID         string   `json:"id"`
	Node       string   `json:"node"`
	Type       string   `json:"type"`
	State      string   `json:"state"` // running, done or failed
	Phase      string   `json:"phase"`
	BytesDone  int64    `json:"bytes_done"`
	BytesTotal int64    `json:"bytes_total"`
	Label      string   `json:"label"` // of a done one
	Prior      string   `json:"prior"`
	Size       int64    `json:"size_bytes"`
	Copied     int64    `json:"copied_bytes"`
	RepoSize   int64    `json:"repo_bytes"`
	Files      int      `json:"files"`
	LSNStart   string   `json:"lsn_start"`
	LSNStop    string   `json:"lsn_stop"`
	WALStart   string   `json:"wal_start"`
	WALStop    string   `json:"wal_stop"`
	Expired    []string `json:"expired"` // labels that its retention removed
	// Damaged is how many files have damaged pages: the backup is there, but its
	// command has failed unless that was accepted.
	Damaged        int        `json:"damaged_files"`
	DamageAccepted bool       `json:"damage_accepted"`
	Notices        []string   `json:"notices"`
	Error          string     `json:"error"`
	Hint           string     `json:"hint"`
	Code           int        `json:"code"` // pgBackRest's, of a failed one; 0 when it has none
	Start          time.Time  `json:"start"`
	Stop           *time.Time `json:"stop"`
}

// DamagedPages says what is wrong with the data that was backed up; "" when
// nothing is.
func (j *Job) DamagedPages() string {
	switch j.Damaged {
	case 0:
		return ""
	case 1:
		return "one file of it has damaged pages"
	}
	return fmt.Sprintf("%d files of it have damaged pages", j.Damaged)
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
	var q BackupRequest
	if !peer.Take(w, r, &q) {
		return
	}
	j, err := h.askBackup(r.Context(), q)
	if err != nil {
		peer.WriteError(w, err)
		return
	}
	peer.WriteJSON(w, j)
}

// askBackup has the primary, which may be this host, start a backup.
func (h *hostAgent) askBackup(ctx context.Context, q BackupRequest) (*Job, error) {
	j := &Job{}
	err := h.onPrimary(ctx, verb.StartBackup, q, j, func() (err error) {
		j, err = h.startBackup(q)
		return err
	})
	return j, err
}

// onPrimary does something here, when this host leads, or asks the primary for
// it.
func (h *hostAgent) onPrimary(ctx context.Context, v verb.Verb, in, out any, here func() error) error {
	st := h.agent.Status()
	switch {
	case st.Primary == "":
		return peer.Refuse(http.StatusConflict, "no_primary", "manada status", "there is no primary")
	case st.Primary == h.cfg.Node:
		return here()
	}
	addr, ok := h.agent.PeerAddr(st.Primary)
	if !ok {
		return peer.Refuse(http.StatusServiceUnavailable, peer.CodeUnavailable, "manada status", "the address of %s is not known", st.Primary)
	}
	c := peer.Client{TLS: h.id.TLSFor}
	return c.Call(ctx, addr, st.Primary, v, in, out)
}

func (h *hostAgent) startBackup(q BackupRequest) (*Job, error) {
	if h.cfg.Backup.Enabled == "off" {
		return nil, peer.Refuse(http.StatusConflict, "no_repository", "set backup.enabled to auto on every host, and give one the role repository", "backups are off")
	}
	if _, err := h.repo.open(); err != nil {
		return nil, peer.Refuse(http.StatusConflict, "no_repository", "give one host of the herd the role repository", "%v", err)
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	options, err := json.Marshal(q)
	if err != nil {
		return nil, err
	}
	j, err := h.jobs.begin(h.cfg.Node, q.Type)
	if err != nil {
		return nil, err
	}
	// Detached from the request: interrupting the command does not end the backup.
	cmd := exec.CommandContext(h.life, exe, "backup-worker", "-c", h.cfg.File, "--accepted", h.cfg.AcceptedFile(), "--request", string(options), "--socket", h.agent.SocketDir())
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
			if m.Done {
				h.refreshBackups(h.life) // whoever sees it done finds it in the status
			}
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
		h.agent.Event("backup_done", strings.TrimSuffix(j.Type+" backup "+j.Label+"; "+j.DamagedPages(), "; "))
	} else {
		h.agent.Event("backup_failed", j.Type+" backup failed: "+j.Error)
	}
	h.refreshBackups(h.life)
}

// watchBackups keeps what can be restored in the status.
func (h *hostAgent) watchBackups(ctx context.Context) {
	tick := time.NewTicker(2 * time.Second)
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
	ctx, cancel := context.WithTimeout(ctx, 4*time.Second)
	defer cancel()
	b := h.repo.status(ctx)
	if b == nil {
		return // no repository is known yet
	}
	if j := h.jobs.get(); j != nil && j.State == "failed" {
		b.BackupErr = j.Error
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
	Files      int      `json:"files,omitempty"`
	LSNStart   string   `json:"lsn_start,omitempty"`
	LSNStop    string   `json:"lsn_stop,omitempty"`
	WALStart   string   `json:"wal_start,omitempty"`
	WALStop    string   `json:"wal_stop,omitempty"`
	Expired    []string `json:"expired,omitempty"`
	Damaged    int      `json:"damaged,omitempty"`

	DamageAccepted bool `json:"damage_accepted,omitempty"`

	Code    int      `json:"code,omitempty"`
	Notices []string `json:"notices,omitempty"`
	Error   string   `json:"error,omitempty"`
	Hint    string   `json:"hint,omitempty"`
}

func (m workerMessage) apply(j *Job) {
	switch {
	case m.Error != "":
		j.State, j.Error, j.Hint, j.Code = "failed", m.Error, m.Hint, m.Code
	case m.Done:
		j.State, j.Phase, j.Type, j.Label, j.Prior = "done", "done", m.Type, m.Label, m.Prior
		j.Size, j.Copied, j.RepoSize, j.Notices, j.Files = m.Size, m.Copied, m.RepoSize, m.Notices, m.Files
		j.Damaged, j.DamageAccepted = m.Damaged, m.DamageAccepted
		j.LSNStart, j.LSNStop, j.WALStart, j.WALStop, j.Expired = m.LSNStart, m.LSNStop, m.WALStart, m.WALStop, m.Expired
	default:
		j.Phase, j.BytesDone, j.BytesTotal = m.Phase, m.BytesDone, m.BytesTotal
	}
}

var errRole = errors.New("this host has no database")

// connectLocal is how a process on the primary's own host logs in to make a
// backup: by the user of the operating system, with a role that may do just that.
func connectLocal(ctx context.Context, socketDir string, port int) (*pgconn.PgConn, error) {
	return pgconnect.Open(ctx, pgconnect.Session{Conninfo: pgconnect.Local(socketDir, port, cluster.RoleBackup), Name: cluster.ServiceName("backup", "worker"), Patience: 10 * time.Second})
}
