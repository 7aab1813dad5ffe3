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
	"syscall"

	"manada/internal/porttest"
	"manada/internal/proxy"
	"manada/internal/proxy/pool/rules"
	"manada/internal/proxy/route"
)

// target is one thing that is measured.
type target struct {
	name     string
	addr     string
	pid      int
	tls      bool
	children bool // its processes' time counts, too
}

// variants are the ways in which the proxy is run, each a process of its own.
// A change of the proxy's configuration that has a bar gets one here.
var variants = []struct {
	name   string
	socket bool // to PostgreSQL over its unix socket
	change func(*proxy.Config)
}{
	{"session", true, func(*proxy.Config) {}},
	{"manada", true, shares(rules.Transaction)},
	{"manada-tcp", false, shares(rules.Transaction)},
	{"auto", true, shares(rules.Auto)},
}

// poolSize is how many connections clients share, here and at PgBouncer.
const poolSize = 100

func shares(mode rules.Mode) func(*proxy.Config) {
	return func(c *proxy.Config) {
		c.Pool.Default.Mode, c.Pool.Default.Size, c.NodeLimit = mode, poolSize, poolSize
	}
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
		out = append(out, target{name: v.name, addr: addr, pid: pid, tls: true})
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
	go proxy.KeepHeadroom(ctx)
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
