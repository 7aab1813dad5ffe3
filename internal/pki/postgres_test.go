package pki

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"manada/internal/porttest"

	"github.com/jackc/pgx/v5/pgconn"
)

const pgBin = "/usr/lib/postgresql/15/bin"

// pgUser is the account that PostgreSQL runs under when the tests are root's.
func pgUser(t *testing.T) *syscall.SysProcAttr {
	if os.Geteuid() != 0 {
		return nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		t.Skip("no user postgres")
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
}

// PostgreSQL itself reads the files, also when root made them, and both libpq
// and our own configuration verify it by the node's name.
func TestPostgresServesOurCertificate(t *testing.T) {
	if _, err := os.Stat(filepath.Join(pgBin, "initdb")); err != nil {
		t.Skip("no PostgreSQL 15 here")
	}
	attr := pgUser(t)
	dir, err := os.MkdirTemp("/tmp", "manada-pki-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o755))
	idDir := filepath.Join(dir, "identity")
	must(t, os.Mkdir(idDir, 0o700))
	if attr != nil {
		must(t, os.Chown(dir, int(attr.Credential.Uid), int(attr.Credential.Gid)))
		must(t, os.Chown(idDir, int(attr.Credential.Uid), int(attr.Credential.Gid)))
	}
	_, err = Found(idDir, "olivo", "master", KindData, nil)
	must(t, err)
	id, err := Load(idDir)
	must(t, err)
	port := startPostgres(t, filepath.Join(dir, "data"), id.PostgresFiles(), attr)

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	connect := func(node string) error {
		cfg, err := pgconn.ParseConfig("host=127.0.0.1 user=postgres dbname=postgres sslmode=require port=" + port)
		must(t, err)
		cfg.TLSConfig, cfg.Fallbacks = id.ClientTLS(node), nil
		c, err := pgconn.ConnectConfig(ctx, cfg)
		if err == nil {
			c.Close(ctx)
		}
		return err
	}
	for err := connect("master"); err != nil; err = connect("master") {
		if pe, ok := errors.AsType[*pgconn.PgError](err); ctx.Err() != nil || ok && pe.Code != "57P03" {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err := connect("slave"); err == nil || !strings.Contains(err.Error(), "is master, not slave") {
		t.Errorf("connected to another node: %v", err)
	}
	for host, want := range map[string]bool{"master": true, "slave": false} {
		cmd := exec.CommandContext(ctx, filepath.Join(pgBin, "psql"), "-XAtc", "select ssl from pg_stat_ssl where pid = pg_backend_pid()",
			"user=postgres dbname=postgres hostaddr=127.0.0.1 sslmode=verify-full host="+host+" port="+port+" sslrootcert="+id.PostgresFiles().CA)
		out, err := cmd.CombinedOutput()
		if got := err == nil && strings.TrimSpace(string(out)) == "t"; got != want {
			t.Errorf("psql verify-full host=%s: %v, %s", host, err, out)
		}
	}
}

func startPostgres(t *testing.T, data string, f Files, attr *syscall.SysProcAttr) (port string) {
	t.Helper()
	initdb := exec.CommandContext(t.Context(), filepath.Join(pgBin, "initdb"), "-D", data, "-U", "postgres", "-A", "trust", "--no-sync")
	initdb.SysProcAttr, initdb.Dir = attr, filepath.Dir(data)
	if out, err := initdb.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	free, err := porttest.Pick()
	must(t, err)
	port = strconv.Itoa(free)
	pg := exec.Command(filepath.Join(pgBin, "postgres"), "-D", data, "-p", port, "-c", "listen_addresses=127.0.0.1",
		"-c", "unix_socket_directories=", "-c", "fsync=off", "-c", "shared_buffers=8MB", "-c", "ssl=on", "-c", "ssl_cert_file="+f.Cert, "-c", "ssl_key_file="+f.Key, "-c", "ssl_ca_file="+f.CA)
	pg.SysProcAttr, pg.Dir = attr, filepath.Dir(data)
	log := &strings.Builder{}
	pg.Stderr = log
	must(t, pg.Start())
	t.Cleanup(func() {
		pg.Process.Signal(syscall.SIGQUIT)
		pg.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	return port
}
