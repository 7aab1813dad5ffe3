package proxy_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"manada/internal/proxy/hba"
	"manada/internal/proxy/wire"
	"manada/test/trust"
)

// The proxy admits whom PostgreSQL would: random lines of pg_hba.conf and random
// start-up packets are shown to both, and their answers compared word for word.
func TestTrustHBAIsPostgreSQLs(t *testing.T) {
	h := startHerd(t)
	h.restoreHBA(t)
	seed := uint64(time.Now().UnixNano())
	r := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	refused := 0
	for round := range trust.Runs(6, 300) {
		lines := randomHBA(r)
		rules, err := hba.Parse(lines)
		if err != nil {
			t.Fatalf("%q: %v", lines, err)
		}
		h.loadHBA(t, lines, fmt.Sprintf("marker_%d_%d", os.Getpid(), round))
		for range 40 {
			p := randomStartup(r)
			want := p.askPostgres(t, h)
			got := p.askProxy(rules)
			if got != want {
				t.Fatalf("seed %d, %q\n%+v\nproxy:      %s\nPostgreSQL: %s", seed, lines, p, got, want)
			}
			if want != admitted {
				refused++
			}
		}
	}
	if refused == 0 {
		t.Error("nobody was refused: nothing was tested")
	}
}

const admitted = "asked for a password"

func (h *herd) restoreHBA(t *testing.T) {
	path := filepath.Join(h.primary.data, "pg_hba.conf")
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.write("primary/pg_hba.conf", before); err != nil {
			t.Error(err)
		}
		h.primary.cmd.Process.Signal(syscall.SIGHUP)
	})
}

// loadHBA lets the primary take the lines and waits until it has.
func (h *herd) loadHBA(t *testing.T, lines []string, marker string) {
	t.Helper()
	text := "host all postgres 127.0.0.1/32 scram-sha-256\nhost replication postgres 127.0.0.1/32 scram-sha-256\nhost all " + marker + " all reject\n" + strings.Join(lines, "\n") + "\n"
	if err := h.write("primary/pg_hba.conf", []byte(text)); err != nil {
		t.Fatal(err)
	}
	c := connect(t, superuser(h.primary.addr()))
	defer c.Close(t.Context())
	if bad := query[string](t, c, "select coalesce(string_agg(error, ', '), '') from pg_hba_file_rules"); bad != "" {
		t.Fatalf("PostgreSQL does not take %q: %s", lines, bad)
	}
	h.primary.cmd.Process.Signal(syscall.SIGHUP)
	p := packet{from: "127.0.0.1", params: []wire.Param{{Name: "user", Value: marker}, {Name: "database", Value: "x"}}}
	eventually(t, "the lines", func() bool { return strings.Contains(p.askPostgres(t, h), "rejects") })
}

// packet is how a client begins.
type packet struct {
	from   string
	tls    bool
	params []wire.Param
}

func (p packet) askProxy(rules hba.Rules) string {
	s := wire.Startup{Params: p.params}
	physical, err := s.Replication()
	if err != nil {
		var e *wire.Error
		errors.As(err, &e)
		return e.Code + " " + e.Message
	}
	if why := rules.Refuses(hba.Client{Addr: p.from + ":1", TLS: p.tls, User: s.User(), Database: s.Database(), Replication: physical}); why != "" {
		return "28000 " + why
	}
	return admitted
}

func (p packet) askPostgres(t *testing.T, h *herd) string {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(p.from)}, Timeout: 5 * time.Second}
	conn, err := d.DialContext(t.Context(), "tcp", h.primary.addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	if p.tls {
		conn.Write(wire.AppendSSLRequest(nil))
		var answer [1]byte
		if _, err := io.ReadFull(conn, answer[:]); err != nil || answer[0] != 'S' {
			t.Fatalf("%q, %v", answer, err)
		}
		conn = tls.Client(conn, &tls.Config{RootCAs: h.roots, ServerName: "127.0.0.1"})
	}
	conn.Write(wire.AppendStartup(nil, p.params))
	typ, body, err := wire.ReadMessage(conn, 1<<16)
	switch {
	case err != nil:
		t.Fatalf("%+v: %v", p, err)
	case typ == wire.TypeError:
		e := wire.ParseError(body)
		return e.Code + " " + e.Message
	}
	return admitted
}

// Names that are alike in the ways in which a rule can be mistaken.
var (
	long   = strings.Repeat("n", 63)
	wide   = "x" + strings.Repeat("ä", 31) // 63 bytes
	broken = strings.Repeat("ä", 31) + "n"
	names  = []string{"app", "App", "all", "replication", "sameuser", `q"uote`, "with space", "com,ma", long, wide, broken, "#hash", "+group", "@file"}
	asked  = append([]string{long + "n", long + "ä", wide + "x", wide + "ä", strings.Repeat("ä", 32), broken + "ä", "", "other"}, names...)
	answer = []string{"true", "TRUE", "tru", "t", "T", "yes", "ye", "Y", "on", "oN", "o", "1", "11", "database", "databas", "false", "fals", "no", "off", "of", "0", "", " true", "true "}
)

func randomHBA(r *rand.Rand) (lines []string) {
	for range 1 + r.IntN(6) {
		line := pick(r, "host", "hostssl", "hostnossl", `"host"`, "hostnogssenc") + " " + randomList(r) + " " + randomList(r) + " " +
			pick(r, "all", "127.0.0.1/32", "127.0.0.2/32", "127.0.0.0/30", "127.0.0.77/8", "127.0.0.2 255.255.255.255", "samehost", "::1/128", "10.0.0.0/8", `"127.0.0.3/32"`) +
			pick(r, " ", "\t", "  ") + pick(r, "scram-sha-256", "reject", "reject # why", `"reject"`)
		lines = append(lines, line)
	}
	return lines
}

func randomList(r *rand.Rand) string {
	var out []string
	for range 1 + r.IntN(2) {
		n := names[r.IntN(len(names))]
		bare := !strings.ContainsAny(n, `" ,#+@`)
		switch k := r.IntN(4); {
		case bare && k < 2:
		case bare && k == 2: // a quote that does not begin the word leaves a keyword one
			n += `""`
		default:
			n = `"` + strings.ReplaceAll(n, `"`, `""`) + `"`
		}
		out = append(out, n)
	}
	return strings.Join(out, pick(r, ",", ", ", ",,"))
}

func randomStartup(r *rand.Rand) packet {
	p := packet{from: fmt.Sprintf("127.0.0.%d", 1+r.IntN(4)), tls: r.IntN(2) == 0}
	add := func(name string, from []string) {
		p.params = append(p.params, wire.Param{Name: name, Value: from[r.IntN(len(from))]})
	}
	add("user", asked[:len(asked)-1])
	if p.params[0].Value == "" {
		p.params[0].Value = "other" // the proxy says by itself that there is none
	}
	if r.IntN(5) > 0 {
		add("database", asked)
	}
	for r.IntN(3) == 0 {
		add("replication", answer)
	}
	return p
}

func pick(r *rand.Rand, of ...string) string { return of[r.IntN(len(of))] }
