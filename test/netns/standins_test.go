package netns

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sys/unix"

	"manada/test/measure"
)

// What a namespace has not and the walk-through types. The packages are this
// machine's own, so apt-get only says whether they are there.
const (
	standinApt = `#!/bin/sh
[ "$1" = install ] || { echo "apt-get $1: not known here" >&2; exit 100; }
shift
for p in "$@"; do
	case $p in -*) continue ;; esac
	[ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || { echo "E: $p is not installed: make test installs it" >&2; exit 100; }
done
`
	standinSCP = `#!/bin/bash
# scp FROM... TO, of which root@HOST:PATH lies in that host's folder.
set -eu
place() {
	case $1 in
	root@*:/var/lib/*) host=${1#root@}; echo "$NETNS_TEST_ROOT/${host%%:*}/varlib/${1#root@*:/var/lib/}" ;;
	root@*:/*) echo "scp: $1: not known here" >&2; return 1 ;;
	root@*:*) host=${1#root@}; echo "$NETNS_TEST_ROOT/${host%%:*}/root/${1#root@*:}" ;;
	*) echo "$1" ;;
	esac
}
known() {
	case $1 in root@*:*) host=${1#root@}; getent hosts "${host%%:*}" >/dev/null || { echo "scp: unknown host ${host%%:*}" >&2; exit 1; } ;; esac
}
args=()
for a in "$@"; do known "$a"; args+=("$(place "$a")"); done
cp "${args[@]}"
`
	standinSystemctl = `#!/bin/sh
NETNS_TEST_ROLE=systemctl exec "$NETNS_TEST_ROOT/standins/this-test" "$@"
`
)

// standIns makes them.
func (l *lab) standIns() {
	l.t.Helper()
	dir := filepath.Join(l.root, "standins")
	check(l.t, os.MkdirAll(dir, 0o755))
	for name, text := range map[string]string{"apt-get": standinApt, "scp": standinSCP, "systemctl": standinSystemctl} {
		check(l.t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755))
	}
	self, err := os.Open("/proc/self/exe")
	check(l.t, err)
	defer self.Close()
	copied, err := os.OpenFile(filepath.Join(dir, "this-test"), os.O_CREATE|os.O_WRONLY, 0o755)
	check(l.t, err)
	_, err = io.Copy(copied, self)
	check(l.t, errors.Join(err, copied.Close()))
}

// here runs commands in a folder of the application's host or of the builder's,
// which are this namespace.
func (l *lab) here(folder, script string) (string, error) {
	ctx, cancel := context.WithTimeout(l.t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/bash", "-euo", "pipefail", "-c", script)
	cmd.Dir, cmd.Env, cmd.WaitDelay = filepath.Join(l.root, folder), l.env(folder), 2*time.Second
	return output(cmd)
}

// buildProgram makes the builder's folder: what a clone holds after make build.
func (l *lab) buildProgram() {
	l.t.Helper()
	dir := filepath.Join(l.root, builder)
	check(l.t, os.MkdirAll(filepath.Join(dir, "bin"), 0o755))
	cmd := exec.CommandContext(l.t.Context(), "go", "build", "-trimpath", "-o", filepath.Join(dir, "bin", "manada"), "./cmd/manada")
	cmd.Dir, cmd.Env = "../..", append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		l.t.Fatalf("build manada: %v\n%s", err, out)
	}
	if out, err := exec.CommandContext(l.t.Context(), "cp", "-a", "../../deploy", dir).CombinedOutput(); err != nil {
		l.t.Fatalf("copy deploy: %v\n%s", err, out)
	}
}

// knowNames lets this namespace, the application's host, know the hosts' names.
func (l *lab) knowNames() {
	l.t.Helper()
	var b strings.Builder
	b.WriteString("127.0.0.1 localhost\n")
	for _, m := range l.hosts {
		fmt.Fprintf(&b, "%s %s\n", m.addr, m.name)
	}
	file := filepath.Join(l.root, "app-hosts")
	check(l.t, os.WriteFile(file, []byte(b.String()), 0o644))
	check(l.t, unix.Mount(file, "/etc/hosts", "", unix.MS_BIND, ""))
	check(l.t, os.MkdirAll(filepath.Join(l.root, "app"), 0o755))
}

// localWriter commits rows from a host itself, one after the other, and prints
// each that was acknowledged: "ID NANOSECONDS".
func localWriter(args []string) error {
	dsn, id := args[0], int64(1_000_000_000)
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		c, err := pgconn.Connect(ctx, dsn)
		cancel()
		for err == nil {
			id++
			if _, err = c.Exec(context.Background(), fmt.Sprintf("insert into %s (id, conn) values (%d, 9)", measure.Table, id)).ReadAll(); err == nil {
				fmt.Println(id, time.Now().UnixNano())
			}
		}
		if c != nil {
			c.Conn().Close()
		}
		time.Sleep(20 * time.Millisecond)
	}
}
