package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"manada/internal/cluster"
	"manada/internal/config"
	"manada/internal/guardian"
	"manada/internal/pgconnect"
	"manada/internal/pki"
	"manada/internal/postgres"
)

// firstRun is what a new herd's database still gets, on the founder. What was
// done is kept, so that an interrupted run goes on where it was.
type firstRun struct {
	Schema  int      `json:"schema"` // 1
	App     App      `json:"app"`    // without its password: that is in the identity
	Scripts string   `json:"scripts"`
	Ran     []string `json:"ran"`
	Failed  string   `json:"failed,omitempty"` // why it stopped for good
	Done    bool     `json:"done"`
}

func firstRunFile(c *config.Config) string { return filepath.Join(c.StateDir(), "first-run.json") }

func firstRunKnown(c *config.Config) bool {
	_, err := os.Stat(firstRunFile(c))
	return err == nil
}

func readFirstRun(c *config.Config) (f firstRun, ok bool, err error) {
	b, err := os.ReadFile(firstRunFile(c))
	if errors.Is(err, fs.ErrNotExist) {
		return f, false, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &f)
	}
	if err != nil {
		return f, false, fmt.Errorf("read what a new database still gets: %w", err)
	}
	return f, true, nil
}

func writeFirstRun(c *config.Config, f firstRun) error {
	b, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return fmt.Errorf("keep what a new database still gets: %w", err)
	}
	return writePrivate(firstRunFile(c), string(b)+"\n")
}

// Pending says whether this host still has to give a new database what its
// user wants.
func Pending(c *config.Config) bool {
	f, ok, err := readFirstRun(c)
	return err == nil && ok && !f.Done
}

// FirstRun does it, as soon as PostgreSQL here is the primary: role, database,
// then the scripts in the order of their names. A script that fails ends it;
// after it was mended the next start of the container goes on with it.
func FirstRun(ctx context.Context, c *config.Config, log *slog.Logger) error {
	f, ok, err := readFirstRun(c)
	if err != nil || !ok || f.Done {
		return err
	}
	conn, err := awaitPrimary(ctx, c)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if err := f.furnish(ctx, c, conn); err != nil {
		return err
	}
	f.Failed = ""
	for _, name := range f.pending(log) {
		file := filepath.Join(f.Scripts, name)
		log.Info("running a script of the new database", "file", file)
		dir, _, err := guardian.SocketDir(c.RunDir, len(".s.PGSQL.65535"))
		if err != nil {
			return err
		}
		out, err := postgres.Script(ctx, file, dir, c.Ports.PostgreSQL, f.database())
		for _, line := range strings.Split(strings.TrimSpace(out), "\n") {
			if line != "" {
				log.Info(line, "script", name)
			}
		}
		if err != nil {
			if ctx.Err() != nil {
				return err
			}
			log.Error("a script of the new database failed; mend it and restart the container: it goes on with this script", "file", file, "error", err.Error())
			f.Failed = err.Error()
			return writeFirstRun(c, f)
		}
		f.Ran = append(f.Ran, name)
		if err := writeFirstRun(c, f); err != nil {
			return err
		}
	}
	f.Done = true
	log.Info("the new database has what it was to get", "database", f.database(), "role", f.App.User, "scripts", len(f.Ran))
	return writeFirstRun(c, f)
}

func (f firstRun) database() string {
	if f.App.Database == "" {
		return cluster.Database
	}
	return f.App.Database
}

// pending are the scripts that have not run, in the order of their names.
func (f firstRun) pending(log *slog.Logger) []string {
	entries, err := os.ReadDir(f.Scripts)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Error("cannot read the scripts for the new database", "error", err.Error())
	}
	var names []string
	for _, e := range entries {
		n := e.Name()
		known := strings.HasSuffix(n, ".sh") || strings.HasSuffix(n, ".sql") || strings.HasSuffix(n, ".sql.gz")
		if known && !e.IsDir() && !slices.Contains(f.Ran, n) {
			names = append(names, n)
		}
	}
	return names // ReadDir sorts
}

// awaitPrimary connects to this host's PostgreSQL when it is the primary.
func awaitPrimary(ctx context.Context, c *config.Config) (*pgconn.PgConn, error) {
	for {
		conn, err := dialLocal(ctx, c)
		if err == nil {
			res, qerr := conn.Exec(ctx, "select pg_is_in_recovery()").ReadAll()
			if qerr == nil && string(res[0].Rows[0][0]) == "f" {
				return conn, nil
			}
			conn.Close(ctx)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func dialLocal(ctx context.Context, c *config.Config) (*pgconn.PgConn, error) {
	dir, _, err := guardian.SocketDir(c.RunDir, len(".s.PGSQL.65535"))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return pgconnect.Open(ctx, pgconnect.Session{Conninfo: pgconnect.Local(dir, c.Ports.PostgreSQL, cluster.RoleSuperuser),
		Name: cluster.ServiceName("first-run", c.Node)})
}

// furnish makes role and database. Passwords stay out of PostgreSQL's log.
func (f firstRun) furnish(ctx context.Context, c *config.Config, conn *pgconn.PgConn) error {
	secrets, err := pki.ReadSecrets(c.IdentityDir())
	if err != nil {
		return err
	}
	run := func(sql string) error {
		if _, err := conn.Exec(ctx, sql).ReadAll(); err != nil {
			return fmt.Errorf("furnish the new database: %w", err)
		}
		return nil
	}
	if err := run("set log_statement = none; set log_min_duration_statement = -1; set log_min_error_statement = panic; set log_duration = off"); err != nil {
		return err
	}
	if u := f.App.User; u != "" {
		if err := run(makeRole(u, secrets[u])); err != nil {
			return err
		}
	}
	if m := f.App.Monitor; m != "" {
		if err := run(makeRole(m, secrets[m]) + "; grant pg_monitor to " + ident(m)); err != nil {
			return err
		}
	}
	return f.makeDatabase(ctx, conn, run)
}

func (f firstRun) makeDatabase(ctx context.Context, conn *pgconn.PgConn, run func(string) error) error {
	db := f.App.Database
	if db == "" || db == cluster.Database {
		return nil
	}
	res, err := conn.Exec(ctx, "select 1 from pg_database where datname = "+literal(db)).ReadAll()
	if err != nil {
		return fmt.Errorf("furnish the new database: %w", err)
	}
	if len(res[0].Rows) > 0 {
		return nil
	}
	owner := f.App.User
	if owner == "" {
		owner = cluster.RoleSuperuser
	}
	return run("create database " + ident(db) + " owner " + ident(owner))
}

func makeRole(name, password string) string {
	return fmt.Sprintf("do $manada$ begin if not exists (select from pg_roles where rolname = %s) then create role %s login; end if; end $manada$; alter role %s password %s",
		literal(name), ident(name), ident(name), literal(password))
}

func ident(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }

// literal quotes a text; standard_conforming_strings is on in a new database.
func literal(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
