package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// folder makes a folder inside the rivals' root, with files, and gives its path
// outside and inside.
func (s *stage) folder(root string, files map[string]string) (inside string, err error) {
	dir, err := os.MkdirTemp(filepath.Join(root, "tmp"), "bench-")
	if err != nil {
		return "", err
	}
	s.left = append(s.left, dir)
	if err := os.Chmod(dir, 0o777); err != nil {
		return "", err
	}
	inside = strings.TrimPrefix(dir, strings.TrimSuffix(root, "/"))
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(strings.ReplaceAll(text, "DIR", inside)), 0o644); err != nil {
			return "", err
		}
	}
	return inside, nil
}

// inside starts a rival in its root, as nobody.
func (s *stage) inside(root, name, program string, args ...string) (int, error) {
	cmd := exec.Command(program, args...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Chroot: root, Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	return s.start(name, cmd)
}

const pgbouncerIni = `[databases]
postgres = host=127.0.0.1 port=%d dbname=postgres
[pgbouncer]
listen_addr = %s
listen_port = %s
unix_socket_dir =
auth_type = scram-sha-256
auth_file = DIR/users
pool_mode = transaction
max_client_conn = 15000
default_pool_size = %d
max_prepared_statements = 200
client_tls_sslmode = allow
client_tls_cert_file = DIR/crt
client_tls_key_file = DIR/key
query_wait_timeout = 120
log_connections = 0
log_disconnections = 0
`

// pgbouncer runs with its defaults but for the sizes: over TCP to PostgreSQL.
func (s *stage) pgbouncer(root string, size int) (target, error) {
	addr, err := pick()
	if err != nil {
		return target{}, err
	}
	host, port, _ := net.SplitHostPort(addr)
	files := map[string]string{
		"users": fmt.Sprintf("%q %q\n", "bench", s.verifier),
		"ini":   fmt.Sprintf(pgbouncerIni, s.port, host, port, size),
	}
	for _, f := range []string{"crt", "key"} {
		b, err := os.ReadFile(filepath.Join(s.dir, f))
		if err != nil {
			return target{}, err
		}
		files[f] = string(b)
	}
	dir, err := s.folder(root, files)
	if err != nil {
		return target{}, err
	}
	pid, err := s.inside(root, "pgbouncer", "/usr/sbin/pgbouncer", dir+"/ini")
	return target{name: "pgbouncer", addr: addr, pid: pid, tls: true}, err
}

const pgpoolConf = `backend_clustering_mode = 'streaming_replication'
listen_addresses = '%s'
port = %s
unix_socket_directories = 'DIR'
pcp_listen_addresses = ''
pcp_port = %s
pcp_socket_dir = 'DIR'
pid_file_name = 'DIR/pid'
logdir = 'DIR'
work_dir = 'DIR'
enable_pool_hba = on
pool_passwd = 'pool_passwd'
num_init_children = 70
max_pool = 1
load_balance_mode = off
sr_check_period = 0
health_check_period = 0
memory_cache_enabled = off
backend_hostname0 = '127.0.0.1'
backend_port0 = %d
backend_flag0 = 'ALWAYS_PRIMARY|DISALLOW_TO_FAILOVER'
`

// pgpool has a process for each client; it splits nothing here.
func (s *stage) pgpool(root string) (target, error) {
	addr, err := pick()
	if err != nil {
		return target{}, err
	}
	pcp, err := pick()
	if err != nil {
		return target{}, err
	}
	host, port, _ := net.SplitHostPort(addr)
	_, pcpPort, _ := net.SplitHostPort(pcp)
	dir, err := s.folder(root, map[string]string{
		"pool_passwd": "bench:TEXT" + password + "\n",
		"hba":         "host all all 127.0.0.1/32 scram-sha-256\n",
		"pcp":         "",
		"conf":        fmt.Sprintf(pgpoolConf, host, port, pcpPort, s.port),
	})
	if err != nil {
		return target{}, err
	}
	pid, err := s.inside(root, "pgpool", "/usr/sbin/pgpool", "-n", "-f", dir+"/conf", "-a", dir+"/hba", "-F", dir+"/pcp")
	return target{name: "pgpool", addr: addr, pid: pid, children: true}, err
}
