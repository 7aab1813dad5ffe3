package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"manada/internal/porttest"
)

// pgbin has PostgreSQL's programs.
const pgbin = "/usr/lib/postgresql/15/bin"

// byHand is a postmaster that nobody of the herd started.
type byHand struct {
	e    *env
	dir  string // of its data
	sock string
	port int
	done chan struct{}
	pid  int
	end  sync.Once
}

// asOwner runs a command as who owns the folder: PostgreSQL insists.
func (e *env) asOwner(cmd *exec.Cmd, dir string) *exec.Cmd {
	e.Helper()
	fi, err := os.Stat(dir)
	if err != nil {
		e.Fatal(err)
	}
	st := fi.Sys().(*syscall.Stat_t)
	if int(st.Uid) != os.Geteuid() {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: st.Uid, Gid: st.Gid}}
	}
	cmd.Dir, cmd.Env = "/", cleanEnv(cmd.Env)
	return cmd
}

// ownedFolder is a new folder that belongs to who owns dir.
func (e *env) ownedFolder(dir string) string {
	e.Helper()
	d, err := os.MkdirTemp(base, "d-")
	if err == nil {
		err = os.Chmod(d, 0o755)
	}
	fi, serr := os.Stat(dir)
	if err != nil || serr != nil {
		e.Fatal(err, serr)
	}
	st := fi.Sys().(*syscall.Stat_t)
	if int(st.Uid) != os.Geteuid() {
		if err := os.Chown(d, int(st.Uid), int(st.Gid)); err != nil {
			e.Fatal(err)
		}
	}
	return d
}

// startByHand starts the postmaster as a person would who only knows the
// directory, with a pg_hba.conf that lets everybody in.
func (e *env) startByHand(dir string, options ...string) *byHand {
	e.Helper()
	port, err := porttest.Pick()
	if err != nil {
		e.Fatal(err)
	}
	p := &byHand{e: e, dir: dir, sock: e.ownedFolder(dir), port: port, done: make(chan struct{})}
	hba := filepath.Join(p.sock, "hba")
	if err := os.WriteFile(hba, []byte("local all all trust\n"), 0o644); err != nil {
		e.Fatal(err)
	}
	log, err := os.Create(filepath.Join(p.sock, "log"))
	if err != nil {
		e.Fatal(err)
	}
	defer log.Close()
	args := append([]string{"-D", dir, "-p", fmt.Sprint(port), "-k", p.sock, "-c", "hba_file=" + hba}, options...)
	cmd := e.asOwner(exec.Command(filepath.Join(pgbin, "postgres"), args...), dir)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		e.Fatal(err)
	}
	p.pid = cmd.Process.Pid
	go func() { _ = cmd.Wait(); close(p.done) }()
	e.Cleanup(p.kill)
	e.eventually(90*time.Second, "postmaster started by hand", func() string {
		select {
		case <-p.done:
			b, _ := os.ReadFile(log.Name())
			e.Fatalf("the postmaster started by hand ended:\n%s", b)
		default:
		}
		if _, err := p.psql("select 1"); err != nil {
			return err.Error()
		}
		return ""
	})
	return p
}

// psql is the answer to a query.
func (p *byHand) psql(sql string) (string, error) {
	ctx, cancel := context.WithTimeout(p.e.ctx, 10*time.Second)
	defer cancel()
	out, err := p.cmd(ctx, sql).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("psql: %w: %s", err, out)
	}
	return strings.TrimSpace(string(out)), nil
}

// psqlStart sends a query whose answer may never come.
func (p *byHand) psqlStart(sql string) <-chan error {
	ch := make(chan error, 1)
	go func() { ch <- p.cmd(p.e.ctx, sql).Run() }()
	return ch
}

func (p *byHand) cmd(ctx context.Context, sql string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(pgbin, "psql"), "-XAtq", "-h", p.sock, "-p", fmt.Sprint(p.port), "-U", "postgres", "-d", "postgres", "-c", sql)
	return p.e.asOwner(cmd, p.dir)
}

// kill ends it as a power failure would, and waits until nothing of it is left;
// once, for the directory may have another postmaster afterwards.
func (p *byHand) kill() { p.end.Do(p.killNow) }

func (p *byHand) killNow() {
	_ = syscall.Kill(p.pid, syscall.SIGKILL)
	<-p.done
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		left := 0
		for _, x := range below(p.dir) {
			if x.cwd == p.dir {
				left++
				_ = syscall.Kill(x.pid, syscall.SIGKILL)
			}
		}
		if left == 0 {
			return
		}
	}
}
