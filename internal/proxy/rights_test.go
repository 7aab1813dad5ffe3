package proxy_test

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"manada/internal/proxy/pool"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

func lookups(t *testing.T, h *herd) *pool.Verifiers {
	v := &pool.Verifiers{Dialer: &pool.Dialer{PlainLocal: true, ConnectTimeout: time.Second, LoginTimeout: 5 * time.Second},
		User: "manada_proxy", Passwords: func() []string { return []string{"proxy secret"} }, Database: "postgres", Timeout: 5 * time.Second}
	t.Cleanup(v.Close)
	return v
}

// What a pooled client is told at its log-in is what PostgreSQL tells one that comes
// to it, word for word: NOLOGIN, CONNECT, ALLOW_CONNECTIONS, CONNECTION LIMIT, VALID
// UNTIL, no such database, and in which order these are looked at.
func TestRightsArePostgreSQLs(t *testing.T) {
	h := startHerd(t)
	h.admin(t, "create database limited")
	h.afterwards(t, "drop database limited with (force)")
	role := h.role(t, "login password 'x'")
	v := lookups(t, h)
	refused := 0
	check := func(what, database string, ofRole, inDatabase int) {
		t.Helper()
		s, err := v.Lookup(t.Context(), h.primary.addr(), role, database)
		if err != nil {
			t.Fatal(err)
		}
		got := "let in"
		if e := s.Rights.Refuse(role, database, ofRole, inDatabase); e != nil {
			got = fmt.Sprint(e.Code, " ", e.Message, " | ", e.Detail, " | ", e.Hint)
			refused++
		}
		want := "let in"
		until := time.Now().Add(5 * time.Second)
	ask:
		c, err := pgx.Connect(t.Context(), fmt.Sprintf("postgres://%s:x@%s/%s?sslmode=disable", role, h.primary.addr(), url.PathEscape(database)))
		var e *pgconn.PgError
		switch {
		case err == nil:
			c.Close(t.Context())
		case errors.As(err, &e):
			if e.Code == "53300" && got == want && time.Now().Before(until) { // it may count one that is leaving
				time.Sleep(5 * time.Millisecond)
				goto ask
			}
			want = fmt.Sprint(e.Code, " ", e.Message, " | ", e.Detail, " | ", e.Hint)
		default:
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("%s, %s:\nproxy:      %s\nPostgreSQL: %s", what, database, got, want)
		}
	}
	all := func(what string, ofRole, inDatabase int) {
		t.Helper()
		for _, db := range []string{"postgres", "limited", "nowhere", `odd "name"`, "template0"} {
			check(what, db, ofRole, inDatabase)
		}
	}
	for _, sql := range []string{
		"select 1", "alter role ROLE nologin", "alter role ROLE login connection limit 0", "alter role ROLE connection limit -1",
		"alter database limited connection limit 0", "alter role ROLE superuser", "alter role ROLE nosuperuser connection limit 0",
		"revoke connect on database limited from public", "alter role ROLE connection limit -1", "grant connect on database limited to ROLE",
		"alter database limited connection limit -1", "update pg_database set datconnlimit = -2 where datname = 'limited'",
		"update pg_database set datconnlimit = -1, datallowconn = false where datname = 'limited'", "alter role ROLE superuser", "alter role ROLE nosuperuser",
		"alter database limited allow_connections true",
	} {
		h.admin(t, strings.ReplaceAll(sql, "ROLE", role))
		all(sql, 0, 0)
	}
	if refused < 30 {
		t.Errorf("%d refusals only", refused)
	}
	// One session of the role is there: PostgreSQL counts it, the book its client.
	held := connect(t, fmt.Sprintf("postgres://%s:x@%s/limited?sslmode=disable", role, h.primary.addr()))
	defer held.Close(t.Context())
	for _, sql := range []string{"alter role " + role + " connection limit 1", "alter role " + role + " connection limit 2", "alter database limited connection limit 1"} {
		h.admin(t, sql)
		check(sql, "limited", 1, 1)
	}
}

// A stamp is another one as soon as what sessions begin with is.
func TestRightsStamp(t *testing.T) {
	h := startHerd(t)
	role := h.role(t, "login password 'x'")
	v := lookups(t, h)
	stamp := func() string {
		t.Helper()
		s, err := v.Lookup(t.Context(), h.primary.addr(), role, "postgres")
		if err != nil || s.Rights.Stamp == "" {
			t.Fatal(s, err)
		}
		return s.Rights.Stamp
	}
	h.afterwards(t, "alter database postgres reset all; alter role all reset all; alter role manada_proxy reset all")
	last := stamp()
	for _, c := range []struct {
		sql     string
		changes bool
	}{
		{"alter role ROLE set work_mem = '5MB'", true},
		{"alter role ROLE set work_mem = '6MB'", true},
		{"alter role ROLE in database postgres set work_mem = '7MB'", true},
		{"alter role ROLE in database template1 set work_mem = '7MB'", false},
		{"alter database postgres set app.tenant = 'a'", true},
		{"alter role all set app.tenant = 'b'", true},
		{"alter role manada_proxy set app.tenant = 'b'", false},
		{"alter role ROLE reset all", true},
		{"alter role ROLE connection limit 7", false},
		{"drop owned by ROLE; drop role ROLE; create role ROLE login password 'x'", true},
	} {
		h.admin(t, strings.ReplaceAll(c.sql, "ROLE", role))
		now := stamp()
		if (now != last) != c.changes {
			t.Errorf("%s: changed: %v", c.sql, now != last)
		}
		last = now
	}
}

func TestCapacity(t *testing.T) {
	h := startHerd(t)
	a := &pool.Asker{Dialer: &pool.Dialer{PlainLocal: true, ConnectTimeout: time.Second, LoginTimeout: 5 * time.Second},
		User: "manada_proxy", Passwords: func() []string { return []string{"proxy secret"} }, Timeout: 5 * time.Second}
	defer a.Leave("")
	for _, addr := range []string{h.primary.addr(), h.standby.addr()} {
		c, err := a.Capacity(t.Context(), addr)
		if err != nil || c != (pool.Capacity{Max: 150, Reserved: 3}) {
			t.Errorf("%+v, %v", c, err)
		}
	}
}
