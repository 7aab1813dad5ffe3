package proxy_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"flag"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"manada/internal/porttest"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"
)

const pgBin = "/usr/lib/postgresql/15/bin/"

// herd is a primary and a streaming standby, made once for all tests.
type herd struct {
	dir              string
	primary, standby instance
	cert             tls.Certificate
	roots            *x509.CertPool
}

type instance struct {
	data string
	port int
	more []string // settings of its own
	cmd  *exec.Cmd
	done chan struct{}
}

func (i *instance) addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(i.port)) }

var (
	once    sync.Once
	shared  *herd
	failure error
)

func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	if shared != nil {
		shared.stop()
	}
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func startHerd(t testing.TB) *herd {
	t.Helper()
	once.Do(func() {
		shared = &herd{}
		if failure = shared.start(); failure != nil {
			shared.stop()
		}
	})
	if failure != nil {
		t.Fatal(failure)
	}
	return shared
}

func (h *herd) start() (err error) {
	if h.dir, err = os.MkdirTemp("/tmp", "manada-proxy-"); err != nil {
		return err
	}
	if err := os.Chmod(h.dir, 0o755); err != nil {
		return err
	}
	if uid, gid, ok := postgresUser(); ok {
		if err := os.Chown(h.dir, uid, gid); err != nil {
			return err
		}
	}
	if err := h.makeCert(); err != nil {
		return err
	}
	pw := filepath.Join(h.dir, "pw")
	if err := h.write("pw", []byte("postgres\n")); err != nil {
		return err
	}
	p, s := &h.primary, &h.standby
	p.data, s.data = filepath.Join(h.dir, "primary"), filepath.Join(h.dir, "standby")
	p.port, s.port = freePort(), freePort()
	if err := h.run("initdb", "-D", p.data, "-U", "postgres", "-A", "scram-sha-256", "--pwfile="+pw, "--no-sync", "--locale=C", "-E", "UTF8"); err != nil {
		return err
	}
	hba := "local all all scram-sha-256\nhost all all 127.0.0.1/32 scram-sha-256\nhost replication all 127.0.0.1/32 scram-sha-256\n"
	if err := h.write("primary/pg_hba.conf", []byte(hba)); err != nil {
		return err
	}
	if err := h.launch(p); err != nil {
		return err
	}
	if err := h.setUp(); err != nil {
		return err
	}
	conn := fmt.Sprintf("host=127.0.0.1 port=%d user=postgres password=postgres", p.port)
	if err := h.run("pg_basebackup", "-D", s.data, "-d", conn, "-R", "-c", "fast", "--no-sync", "-X", "stream"); err != nil {
		return err
	}
	return h.launch(s)
}

// setUp makes what the database side of Manada provides, as it provides it.
func (h *herd) setUp() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := pgx.Connect(ctx, superuser(h.primary.addr()))
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	_, err = c.Exec(ctx, `
		create role manada_proxy login password 'proxy secret';
		create schema manada;
		create function manada.user_lookup(name text) returns table(rolname text, rolpassword text)
			language sql stable security definer set search_path = pg_catalog
			as $$ select a.rolname::text, a.rolpassword from pg_catalog.pg_authid a where a.rolname = $1 $$;
		revoke all on function manada.user_lookup(text) from public;
		grant usage on schema manada to manada_proxy;
		grant execute on function manada.user_lookup(text) to manada_proxy;
		-- what the session is on the node that answers: asked by name it would be the primary's
		create view public.node as select pg_is_in_recovery() standby, current_setting('application_name') app,
			current_setting('search_path') path, current_setting('TimeZone') zone;
		grant select on public.node to public`)
	return err
}

func (h *herd) launch(i *instance) error {
	i.cmd = h.command("postgres", append([]string{"-D", i.data, "-p", strconv.Itoa(i.port), "-k", h.dir, "-c", "listen_addresses=127.0.0.1",
		"-c", "fsync=off", "-c", "max_connections=150", "-c", "ssl=on", "-c", "ssl_cert_file=" + h.dir + "/crt", "-c", "ssl_key_file=" + h.dir + "/key",
		"-c", "shared_buffers=16MB", "-c", "logging_collector=off", "-c", "wal_receiver_status_interval=1s", "-c", "max_wal_size=2GB", "-c", "wal_keep_size=1GB"}, i.more...)...)
	log, err := os.Create(i.data + ".log")
	if err != nil {
		return err
	}
	defer log.Close()
	i.cmd.Stdout, i.cmd.Stderr = log, log
	if err := i.cmd.Start(); err != nil {
		return err
	}
	i.done = make(chan struct{})
	go func() { i.cmd.Wait(); close(i.done) }()
	for deadline := time.Now().Add(20 * time.Second); ; {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		c, err := pgx.Connect(ctx, superuser(i.addr()))
		if err == nil {
			c.Close(ctx)
			cancel()
			return nil
		}
		cancel()
		if time.Now().After(deadline) {
			out, _ := os.ReadFile(i.data + ".log")
			return fmt.Errorf("start postgres: %w\n%s", err, out)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (h *herd) stop() {
	for _, i := range []*instance{&h.standby, &h.primary} {
		if i.done != nil {
			i.cmd.Process.Signal(syscall.SIGQUIT)
			<-i.done
		}
	}
	os.RemoveAll(h.dir)
}

func (h *herd) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(pgBin+name, args...)
	cmd.Dir = h.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if uid, gid, ok := postgresUser(); ok {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	return cmd
}

func (h *herd) run(name string, args ...string) error {
	var out bytes.Buffer
	cmd := h.command(name, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, out.String())
	}
	return nil
}

func (h *herd) write(name string, b []byte) error {
	path := filepath.Join(h.dir, name)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		return err
	}
	if uid, gid, ok := postgresUser(); ok {
		return os.Chown(path, uid, gid)
	}
	return nil
}

func (h *herd) makeCert() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	t := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "herd"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return err
	}
	secret, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	crt := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	pk := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: secret})
	if h.cert, err = tls.X509KeyPair(crt, pk); err != nil {
		return err
	}
	h.roots = x509.NewCertPool()
	h.roots.AppendCertsFromPEM(crt)
	if err := h.write("crt", crt); err != nil {
		return err
	}
	return h.write("key", pk)
}

func postgresUser() (uid, gid int, ok bool) {
	if os.Geteuid() != 0 {
		return 0, 0, false
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return 0, 0, false
	}
	uid, _ = strconv.Atoi(u.Uid)
	gid, _ = strconv.Atoi(u.Gid)
	return uid, gid, true
}

func freePort() int {
	port, err := porttest.Pick()
	if err != nil {
		panic(err)
	}
	return port
}

func superuser(addr string) string {
	return "postgres://postgres:postgres@" + addr + "/postgres?sslmode=disable"
}

// admin runs SQL as superuser on the primary, past the proxy.
func (h *herd) admin(t testing.TB, sql string, args ...any) {
	t.Helper()
	c := connect(t, superuser(h.primary.addr()))
	defer c.Close(t.Context())
	if len(args) == 0 {
		if _, err := c.PgConn().Exec(t.Context(), sql).ReadAll(); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		return
	}
	if _, err := c.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// afterwards runs SQL when the test is over, each statement by itself.
func (h *herd) afterwards(t testing.TB, sql string) {
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		c, err := pgx.Connect(ctx, superuser(h.primary.addr()))
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close(ctx)
		for one := range strings.SplitSeq(sql, ";") {
			if _, err := c.Exec(ctx, one); err != nil {
				t.Errorf("%s: %v", one, err)
			}
		}
	})
}

// role makes a fresh role and waits until the standby knows it too.
func (h *herd) role(t testing.TB, attributes string) string {
	t.Helper()
	name := "r_" + strings.ToLower(strings.NewReplacer("/", "_", "#", "_", "-", "_").Replace(t.Name()))
	h.admin(t, fmt.Sprintf("set password_encryption='scram-sha-256'; create role %s %s", name, attributes))
	h.afterwards(t, fmt.Sprintf("select pg_terminate_backend(pid) from pg_stat_activity where usename='%s'; drop owned by %s; drop role %s", name, name, name))
	c := connect(t, superuser(h.standby.addr()))
	defer c.Close(t.Context())
	eventually(t, "role on the standby", func() bool {
		var n int
		err := c.QueryRow(t.Context(), "select count(*) from pg_roles where rolname=$1", name).Scan(&n)
		return err == nil && n == 1
	})
	return name
}

func connect(t testing.TB, dsn string) *pgx.Conn {
	t.Helper()
	c, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		c.Close(ctx)
	})
	return c
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for: %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
