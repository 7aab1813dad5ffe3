package backup

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"

	"github.com/jackc/pgx/v5/pgconn"

	"manada/internal/repo"
)

// session is the connection under which a backup is open in PostgreSQL. Closing
// it ends the backup there.
type session struct {
	c       *pgconn.PgConn
	version int // server_version_num
}

// rows runs one statement and gives its rows as text; NULL is "".
func (s *session) rows(ctx context.Context, sql string) ([][]string, error) {
	res, err := s.c.Exec(ctx, sql).ReadAll()
	if err != nil {
		return nil, &Error{Code: CodeDBQuery, Text: "query the database", Err: err}
	}
	var out [][]string
	for _, r := range res {
		for _, row := range r.Rows {
			cells := make([]string, len(row))
			for i, v := range row {
				cells[i] = string(v)
			}
			out = append(out, cells)
		}
	}
	return out, nil
}

func (s *session) row(ctx context.Context, sql string, columns int) ([]string, error) {
	rs, err := s.rows(ctx, sql)
	if err != nil {
		return nil, err
	}
	if len(rs) != 1 || len(rs[0]) != columns {
		return nil, fail(CodeDBQuery, "", "query the database: %q gave %d rows", sql, len(rs))
	}
	return rs[0], nil
}

// check makes sure that the session is of the cluster in pgdata, and that the
// backup that it would make can be restored.
func (s *session) check(ctx context.Context, pgdata string, c Control, archive bool) error {
	r, err := s.row(ctx, `select current_setting('server_version_num'), pg_is_in_recovery(), current_setting('data_directory'),
		current_setting('archive_mode'), current_setting('archive_command'), coalesce(current_setting('archive_library', true), ''),
		(select system_identifier from pg_control_system())`, 7)
	if err != nil {
		return err
	}
	if s.version, err = strconv.Atoi(r[0]); err != nil {
		return fmt.Errorf("server_version_num: %w", err)
	}
	if r[1] != "f" {
		return fail(CodeDBMismatch, "Run the backup on the host of the primary.", "the database is a standby")
	}
	if r[6] != strconv.FormatUint(c.SystemID, 10) {
		return fail(CodeDBMismatch, "Does the connection lead to the cluster whose data directory this is?",
			"the database has system identifier %s, the data directory %s has %d", r[6], pgdata, c.SystemID)
	}
	if !sameDir(r[2], pgdata) {
		return fail(CodeDBMismatch, "Give the data directory that the database uses.",
			"the database's data directory is %s, not %s", r[2], pgdata)
	}
	if archive && r[3] == "off" {
		return fail(CodeArchiveDisabled, "Set archive_mode = on and archive_command, and restart PostgreSQL.",
			"archive_mode is off: a backup without WAL cannot be restored")
	}
	if archive && (r[4] == "" || r[4] == "(disabled)") && r[5] == "" {
		return fail(CodeArchiveCommand, "Set archive_command and reload PostgreSQL.",
			"archive_command is empty: a backup without WAL cannot be restored")
	}
	return nil
}

func sameDir(a, b string) bool {
	ra, err := filepath.EvalSymlinks(a)
	if err != nil {
		return filepath.Clean(a) == filepath.Clean(b)
	}
	rb, err := filepath.EvalSymlinks(b)
	return err == nil && ra == rb
}

// start opens the backup; a fast one checkpoints at once.
func (s *session) start(ctx context.Context, label string, fast bool) (lsn, segment string, err error) {
	fn := "pg_backup_start('%s', %v)"
	if s.version < 150000 {
		fn = "pg_start_backup('%s', %v, false)"
	}
	r, err := s.row(ctx, "select lsn::text, pg_walfile_name(lsn) from "+fmt.Sprintf(fn, label, fast)+" as lsn", 2)
	if err != nil {
		return "", "", fmt.Errorf("start the backup: %w", err)
	}
	return r[0], r[1], nil
}

// stopped is what pg_backup_stop gives.
type stopped struct{ lsn, segment, label, spaces string }

// stop closes the backup without waiting for the archive.
func (s *session) stop(ctx context.Context) (stopped, error) {
	fn := "pg_backup_stop(false)"
	if s.version < 150000 {
		fn = "pg_stop_backup(false, false)"
	}
	r, err := s.row(ctx, "select lsn::text, pg_walfile_name(lsn), labelfile, coalesce(spcmapfile, '') from "+fn, 4)
	if err != nil {
		return stopped{}, fmt.Errorf("stop the backup: %w", err)
	}
	return stopped{r[0], r[1], r[2], r[3]}, nil
}

func (s *session) databases(ctx context.Context) ([]repo.Database, error) {
	rs, err := s.rows(ctx, `select oid, datname, (select oid from pg_database where datname = 'template0') from pg_database`)
	if err != nil {
		return nil, err
	}
	var out []repo.Database
	for _, r := range rs {
		id, err := strconv.ParseUint(r[0], 10, 32)
		if err != nil {
			return nil, err
		}
		last, _ := strconv.ParseUint(r[2], 10, 32) // template0 may have been dropped
		out = append(out, repo.Database{Name: r[1], ID: uint32(id), LastSystemID: uint32(last)})
	}
	return out, nil
}

func (s *session) tablespaces(ctx context.Context) (map[string]string, error) {
	rs, err := s.rows(ctx, `select oid, spcname from pg_tablespace`)
	if err != nil {
		return nil, err
	}
	m := map[string]string{}
	for _, r := range rs {
		m[r[0]] = r[1]
	}
	return m, nil
}

// archiver says what the archiver has been failing at, "" when it has not.
func (s *session) archiver(ctx context.Context) string {
	r, err := s.row(ctx, `select coalesce(last_failed_wal, ''), failed_count from pg_stat_archiver
		where last_failed_time > coalesce(last_archived_time, '-infinity')`, 2)
	if err != nil {
		return ""
	}
	return fmt.Sprintf("; archive_command has failed %s times, last for %s", r[1], r[0])
}
