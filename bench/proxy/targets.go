package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"manada/internal/porttest"
	"manada/internal/proxy"
	"manada/internal/proxy/route"
)

// target is one thing that is measured.
type target struct {
	name string
	addr string
	pid  int
	tls  bool
}

// variants are the ways in which the proxy is run, each a process of its own.
// A change of the proxy's configuration that has a bar gets one here.
var variants = []struct {
	name   string
	socket bool // to PostgreSQL over its unix socket
	change func(*proxy.Config)
}{
	{"manada", true, func(*proxy.Config) {}},
	{"manada-tcp", false, func(*proxy.Config) {}},
}

// moreFiles lets this process and those that it starts hold what 10,000 clients need.
func moreFiles() error {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return err
	}
	l.Cur = l.Max
	return syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l)
}

func pick() (string, error) {
	n, err := porttest.Pick()
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(n)), err
}

// manada starts the variants of the proxy: this program again, with "serve".
func (s *stage) manada() ([]target, error) {
	var out []target
	for i, v := range variants {
		addr, err := pick()
		if err != nil {
			return nil, err
		}
		server := s.addr()
		if v.socket {
			server = s.socket()
		}
		self, err := os.Executable()
		if err != nil {
			return nil, err
		}
		cmd := exec.Command(self, "serve", strconv.Itoa(i), addr, server, filepath.Join(s.dir, "crt"), filepath.Join(s.dir, "key"))
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		pid, err := s.start(v.name, cmd)
		if err != nil {
			return nil, err
		}
		out = append(out, target{v.name, addr, pid, true})
	}
	return out, nil
}

// serve is a proxy as `manada run` has it, before one PostgreSQL.
func serve(ctx context.Context, variant, addr, server, crt, key string) error {
	i, err := strconv.Atoi(variant)
	if err != nil {
		return err
	}
	cert, err := tls.LoadX509KeyPair(crt, key)
	if err != nil {
		return err
	}
	top := &route.Holder{}
	node := route.Node{Name: "master", Addr: server}
	top.Set(route.View{Known: true, Epoch: 1, Open: true, Primary: node, Members: []route.Member{{Node: node, Up: true, Primary: true}}})
	cfg := proxy.DefaultConfig()
	cfg.ReadWriteAddr, cfg.ReadOnlyAddr, cfg.Topology = addr, "", top
	cfg.ClientTLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	cfg.LookupPasswords, cfg.MockSecret = func() []string { return []string{"proxy"} }, "bench"
	cfg.LookupDatabase = "postgres"
	cfg.MaxClientConn = 20000
	cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	variants[i].change(&cfg)
	p, err := proxy.New(cfg)
	if err != nil {
		return err
	}
	if err := p.Listen(ctx); err != nil {
		return err
	}
	return p.Run(ctx)
}

// relays are the floor: to PostgreSQL over TCP, and over its socket.
func (s *stage) relays(ctx context.Context) ([]target, error) {
	bin := filepath.Join(s.dir, "relay")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", bin, "./bench/proxy/relay").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the relay: %w\n%s", err, out)
	}
	var out []target
	for name, server := range map[string]string{"relay-tcp": s.addr(), "relay-unix": s.socket()} {
		addr, err := pick()
		if err != nil {
			return nil, err
		}
		pid, err := s.start(name, s.command(bin, addr, server))
		if err != nil {
			return nil, err
		}
		out = append(out, target{name: name, addr: addr, pid: pid})
	}
	return out, nil
}

// pgbouncer runs in its root, over TCP and with its defaults but for the sizes.
func (s *stage) pgbouncer(root string, size int) (target, error) {
	addr, err := pick()
	if err != nil {
		return target{}, err
	}
	dir, err := os.MkdirTemp(filepath.Join(root, "tmp"), "bench-")
	if err != nil {
		return target{}, err
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		return target{}, err
	}
	inside := strings.TrimPrefix(dir, strings.TrimSuffix(root, "/"))
	host, port, _ := net.SplitHostPort(addr)
	files := map[string]string{
		"users": fmt.Sprintf("%q %q\n", "bench", s.verifier),
		"ini": fmt.Sprintf(`[databases]
postgres = host=127.0.0.1 port=%d dbname=postgres
[pgbouncer]
listen_addr = %s
listen_port = %s
unix_socket_dir =
auth_type = scram-sha-256
auth_file = %[4]s/users
pool_mode = transaction
max_client_conn = 15000
default_pool_size = %d
max_prepared_statements = 200
client_tls_sslmode = allow
client_tls_cert_file = %[4]s/crt
client_tls_key_file = %[4]s/key
query_wait_timeout = 120
log_connections = 0
log_disconnections = 0
`, s.port, host, port, inside, size),
	}
	for _, f := range []string{"crt", "key"} {
		b, err := os.ReadFile(filepath.Join(s.dir, f))
		if err != nil {
			return target{}, err
		}
		files[f] = string(b)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return target{}, err
		}
	}
	cmd := exec.Command("/usr/sbin/pgbouncer", inside+"/ini")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Chroot: root, Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	pid, err := s.start(fmt.Sprintf("pgbouncer-%d", size), cmd)
	return target{"pgbouncer", addr, pid, true}, err
}
