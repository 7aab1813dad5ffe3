package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"manada/internal/blob"
)

// The test binary has three more faces: run by root it starts itself again as
// postgres, as PostgreSQL refuses to run as root; and PostgreSQL runs it as
// archive_command and restore_command.
const envWAL = "MANADA_TEST_WAL"

func TestMain(m *testing.M) {
	if v := os.Getenv(envWAL); v != "" {
		os.Exit(walCommand(v, os.Args[1:]))
	}
	if os.Geteuid() == 0 {
		os.Exit(asPostgres())
	}
	os.Exit(m.Run())
}

// walCommand is "push %p" or "get %f %p" with MANADA_TEST_WAL=<repository>:<stanza>.
func walCommand(where string, args []string) int {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	root, stanza, _ := strings.Cut(where, ":")
	s, err := blob.NewPosix(root, blob.PosixOptions{})
	if err == nil {
		o := ArchiveOptions{Storage: s, Stanza: stanza}
		if args[0] == "push" {
			err = ArchivePush(ctx, o, args[1])
		} else {
			err = ArchiveGet(ctx, o, args[1], args[2])
		}
	}
	if errors.Is(err, ErrNotFound) {
		return 1
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	return 0
}

func asPostgres() int {
	u, err := user.Lookup("postgres")
	if err != nil {
		fmt.Println("no user postgres: not tested")
		return 0
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	dir, err := os.MkdirTemp("/tmp", "manada-backup-*")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer os.RemoveAll(dir)
	exe := filepath.Join(dir, "test.bin")
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chown(dir, uid, gid), copyExecutable(exe)); err != nil {
		fmt.Println(err)
		return 1
	}
	// What go test wants written is in a folder of root's.
	args := slices.DeleteFunc(os.Args[1:], func(a string) bool { return strings.HasPrefix(a, "-test.testlogfile") })
	c := exec.Command(exe, args...)
	c.Env = append(os.Environ(), "TMPDIR="+dir, "HOME="+dir, "USER=postgres")
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, Pdeathsig: syscall.SIGKILL}
	if err := c.Run(); err != nil {
		var x *exec.ExitError
		if !errors.As(err, &x) {
			fmt.Println(err)
		}
		return 1
	}
	return 0
}

func copyExecutable(dst string) error {
	src, err := os.Executable()
	if err != nil {
		return err
	}
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(dst, os.O_WRONLY|os.O_CREATE, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		return err
	}
	return out.Close()
}
