package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"manada/internal/porttest"
	"manada/test/measure"
)

func (d *demo) backups(ctx context.Context) error {
	for _, kind := range []string{"full", "diff"} {
		if err := d.backup(ctx, kind); err != nil {
			return err
		}
		// Something new for the next one to find.
		w := measure.Start(ctx, d.h.DSN(), time.Now().UnixNano())
		err := w.WaitAcked(ctx, 300)
		w.Stop()
		if err != nil {
			return err
		}
	}
	// From here on nothing is written: what is restored must equal this.
	return d.backup(ctx, "incr")
}

func (d *demo) backup(ctx context.Context, kind string) error {
	out, err := d.h.Manada(ctx, "backup", "--type", kind)
	if err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	d.result(kind+" backup", "%s", lines[len(lines)-1])
	return nil
}

// restore restores the last backup into a new directory, starts it and compares
// every table with the source.
func (d *demo) restore(ctx context.Context) error {
	c, err := pgconn.Connect(ctx, d.h.DSN())
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	source, err := fingerprint(func(sql string) (string, error) { return oneConn(ctx, c, sql) })
	if err != nil {
		return err
	}
	base, err := os.MkdirTemp("", "manada-restored-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(base)
	if err := os.Chmod(base, 0o755); err != nil {
		return err
	}
	dir := filepath.Join(base, "data")
	if out, err := d.h.Manada(ctx, "restore", "--to", dir); err != nil {
		return fmt.Errorf("manada restore: %w\n%s", err, out)
	}
	copied, err := d.startCopy(ctx, dir)
	if err != nil {
		return err
	}
	if diff := compare(source, copied); diff != "" {
		return errors.New("the restored cluster differs from the source: " + diff)
	}
	rows := int64(0)
	for _, t := range source {
		rows += t.rows
	}
	d.result("restored and equal", "%d tables, %d rows, every hash the same", len(source), rows)
	return nil
}

// startCopy starts the restored cluster as the user who owns it, looks, and
// stops it.
func (d *demo) startCopy(ctx context.Context, dir string) (map[string]table, error) {
	port, err := porttest.Pick()
	if err != nil {
		return nil, err
	}
	ctl := func(args ...string) error {
		cmd := exec.CommandContext(ctx, pgProgram("pg_ctl"), append([]string{"-D", dir}, args...)...)
		cmd.Dir = "/"
		if err := asOwner(cmd, dir); err != nil {
			return err
		}
		log := filepath.Join(dir, "demo.log")
		out, err := runToEnd(cmd)
		if err != nil {
			text, _ := os.ReadFile(log)
			return fmt.Errorf("pg_ctl %s: %w\n%s\n%s", strings.Join(args, " "), err, out, tail(text))
		}
		return nil
	}
	if err := ctl("-l", filepath.Join(dir, "demo.log"), "-o", fmt.Sprintf("-p %d -k %s", port, dir), "-w", "-t", "90", "start"); err != nil {
		return nil, err
	}
	// A copy is reached through its socket, as the user who owns it.
	query := func(sql string) (string, error) {
		cmd := exec.CommandContext(ctx, pgProgram("psql"), "-XAtq", "-h", dir, "-p", fmt.Sprint(port), "-U", "postgres", "-d", "postgres", "-c", sql)
		cmd.Dir = "/"
		if err := asOwner(cmd, dir); err != nil {
			return "", err
		}
		out, err := runToEnd(cmd)
		if err != nil {
			return "", fmt.Errorf("psql: %w: %s", err, out)
		}
		return strings.TrimSpace(out), nil
	}
	found, err := fingerprintRecovered(ctx, query)
	return found, errors.Join(err, ctl("-m", "fast", "-w", "stop"))
}

// runToEnd does not wait for a daemon that keeps the output open.
func runToEnd(cmd *exec.Cmd) (string, error) {
	f, err := os.CreateTemp("", "manada-out-")
	if err != nil {
		return "", err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	cmd.Stdout, cmd.Stderr = f, f
	err = cmd.Run()
	_, _ = f.Seek(0, io.SeekStart)
	b, _ := io.ReadAll(f)
	return string(b), err
}

func tail(b []byte) string {
	s := bufio.NewScanner(bytes.NewReader(b))
	var lines []string
	for s.Scan() {
		lines = append(lines, s.Text())
	}
	return strings.Join(lines[max(0, len(lines)-10):], "\n")
}

func asOwner(cmd *exec.Cmd, dir string) error {
	fi, err := os.Stat(dir)
	if err != nil {
		return err
	}
	st := fi.Sys().(*syscall.Stat_t)
	if int(st.Uid) != os.Geteuid() {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: st.Uid, Gid: st.Gid}}
	}
	return nil
}

// table is what is compared of one.
type table struct {
	rows int64
	hash string
}

func oneConn(ctx context.Context, c *pgconn.PgConn, sql string) (string, error) {
	res, err := c.Exec(ctx, sql).ReadAll()
	if err != nil {
		return "", err
	}
	var lines []string
	for _, r := range res[0].Rows {
		lines = append(lines, string(r[0]))
	}
	return strings.Join(lines, "\n"), nil
}

// fingerprintRecovered waits until recovery has ended.
func fingerprintRecovered(ctx context.Context, query func(string) (string, error)) (map[string]table, error) {
	for {
		v, err := query("select pg_is_in_recovery()")
		if err != nil {
			return nil, err
		}
		if v == "f" {
			return fingerprint(query)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for the end of recovery: %w", ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// fingerprint counts and hashes every user table, whatever the order of rows.
func fingerprint(query func(string) (string, error)) (map[string]table, error) {
	names, err := query("select format('%I.%I', schemaname, tablename) from pg_tables where schemaname not in ('pg_catalog', 'information_schema', 'manada') order by 1")
	if err != nil {
		return nil, err
	}
	out := map[string]table{}
	for _, name := range strings.Split(names, "\n") {
		v, err := query("select json_build_object('rows', count(*), 'hash', coalesce(sum(hashtextextended(t::text, 0)::numeric), 0)::text) from " + name + " t")
		if err != nil {
			return nil, fmt.Errorf("hash %s: %w", name, err)
		}
		var t struct {
			Rows int64
			Hash string
		}
		if err := json.Unmarshal([]byte(v), &t); err != nil {
			return nil, err
		}
		out[name] = table{t.Rows, t.Hash}
	}
	return out, nil
}

func compare(a, b map[string]table) string {
	for name, t := range a {
		if b[name] != t {
			return fmt.Sprintf("%s has %d rows, the copy %d", name, t.rows, b[name].rows)
		}
	}
	if len(a) != len(b) {
		return fmt.Sprintf("%d tables, the copy has %d", len(a), len(b))
	}
	return ""
}
