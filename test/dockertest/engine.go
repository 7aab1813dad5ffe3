package dockertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Root is the top of the repository as seen from the tests' folders.
const Root = "../.."

// Start makes sure that an engine runs and that the images are built of this
// tree. stop ends the engine if it was started here.
func Start(ctx context.Context, root string) (stop func(), err error) {
	for _, p := range []string{"docker", "docker-compose"} {
		if _, err := exec.LookPath(p); err != nil {
			return nil, fmt.Errorf("%s is missing: run  make guide , which installs it, or set MANADA_SKIP_DOCKER=1 to do without on purpose", p)
		}
	}
	stop = func() {}
	if !answers(ctx) {
		if stop, err = startEngine(ctx); err != nil {
			return nil, err
		}
	}
	if err := build(ctx, root); err != nil {
		stop()
		return nil, err
	}
	return stop, nil
}

func answers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return exec.CommandContext(ctx, "docker", "version", "--format", "{{.Server.Version}}").Run() == nil
}

// startEngine starts dockerd and waits until it answers.
func startEngine(ctx context.Context) (stop func(), err error) {
	path, err := exec.LookPath("dockerd")
	if err != nil {
		return nil, fmt.Errorf("no Docker engine answers and there is no dockerd to start: %w", err)
	}
	log, err := os.CreateTemp("", "manada-dockerd-*.log")
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(path)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the engine: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	stop = func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(30 * time.Second):
			_ = cmd.Process.Kill()
		}
		log.Close()
		os.Remove(log.Name())
	}
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if answers(ctx) {
			return stop, nil
		}
		select {
		case err := <-ended:
			ended <- err
			b, _ := os.ReadFile(log.Name())
			stop()
			return nil, fmt.Errorf("the engine ended (%v); run the tests as root. Its last words:\n%s", err, b[max(0, len(b)-2000):])
		default:
		}
	}
	stop()
	return nil, errors.New("the engine does not answer within a minute")
}

// build makes bin/manada and the images; nothing is compiled when nothing changed.
func build(ctx context.Context, root string) error {
	if os.Getenv("MANADA_GUIDE_BUILT") != "" {
		return nil // by the caller
	}
	for _, argv := range [][]string{{"make", "build"}, {"scripts/image.sh"}} {
		cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
		cmd.Dir = root
		if argv[0] != "make" {
			cmd.Path = filepath.Join(root, argv[0])
			cmd.Path, _ = filepath.Abs(cmd.Path)
			cmd.Err = nil
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", strings.Join(argv, " "), err, tail(out))
		}
	}
	return nil
}

func tail(b []byte) []byte { return bytes.TrimSpace(b[max(0, len(b)-3000):]) }
