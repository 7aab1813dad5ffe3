package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// makeCert is what clients are served with: ECDSA, as the herd's are.
func (s *stage) makeCert() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	t := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return err
	}
	secret, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	for name, block := range map[string]*pem.Block{"crt": {Type: "CERTIFICATE", Bytes: der}, "key": {Type: "EC PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(filepath.Join(s.dir, name), pem.EncodeToMemory(block), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// cpu is what a target's process has used, and its children where they count.
func (t target) cpu() (time.Duration, error) {
	sum, err := used(t.pid)
	if err != nil || !t.children {
		return sum, err
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%[1]d/task/%[1]d/children", t.pid))
	if err != nil {
		return 0, err
	}
	for _, child := range strings.Fields(string(b)) {
		pid, err := strconv.Atoi(child)
		if err != nil {
			return 0, err
		}
		if d, err := used(pid); err == nil { // one that ended is not counted
			sum += d
		}
	}
	return sum, nil
}

// used is the processor time of all threads of a process.
func used(pid int) (time.Duration, error) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(tasks) == 0 {
		return 0, fmt.Errorf("process %d is gone (%w)", pid, err)
	}
	var sum time.Duration
	for _, f := range tasks {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // a thread that ended
		}
		ns, _, _ := strings.Cut(string(b), " ")
		n, err := strconv.ParseInt(ns, 10, 64)
		if err != nil {
			return 0, err
		}
		sum += time.Duration(n)
	}
	return sum, nil
}

// resident is the memory of a process, in bytes.
func resident(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	_, line, _ := strings.Cut(string(b), "VmRSS:")
	f := strings.Fields(line)
	if len(f) < 2 {
		return 0, fmt.Errorf("process %d has no VmRSS", pid)
	}
	n, err := strconv.ParseInt(f[0], 10, 64)
	return n << 10, err
}

var progress = regexp.MustCompile(`progress: ([0-9.]+) s, ([0-9.]+) tps`)

// window is what pgbench did between its first report and its last but one, when
// nobody logs in or leaves.
type window struct {
	tx  float64
	cpu time.Duration
}

// run is pgbench -S, or a script, against a target. The processor time is the target's.
func (s *stage) run(ctx context.Context, t target, mode, script string, clients int, sslmode string, seconds int) (window, error) {
	args := []string{"-n", "-M", mode, "-c", strconv.Itoa(clients), "-T", strconv.Itoa(seconds + 3), "-P", "1"}
	if script == "" {
		args = append(args, "-S")
	} else {
		args = append(args, "-f", script)
	}
	cmd := s.pgbench(t.addr, sslmode, args...)
	errs, err := cmd.StderrPipe()
	if err != nil {
		return window{}, err
	}
	if err := cmd.Start(); err != nil {
		return window{}, err
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer stop()
	w, said, err := watch(errs, t, seconds)
	if ended := cmd.Wait(); ended != nil {
		err = fmt.Errorf("pgbench: %w", ended)
	}
	if err == nil && w.tx == 0 {
		err = errors.New("pgbench reported nothing")
	}
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, said)
	}
	return w, err
}

// watch follows pgbench's reports to their end. What else it said comes back, too.
func watch(reports io.Reader, t target, seconds int) (w window, said string, err error) {
	var before time.Duration
	var last float64
	lines := bufio.NewScanner(reports)
	for n := 0; lines.Scan(); {
		m := progress.FindStringSubmatch(lines.Text())
		if m == nil {
			said += lines.Text() + "\n"
			continue
		}
		at, _ := strconv.ParseFloat(m[1], 64)
		tps, _ := strconv.ParseFloat(m[2], 64)
		now, failed := t.cpu()
		if failed != nil {
			err = failed
		}
		if n++; n == 1 {
			before = now
		} else if n <= seconds+1 {
			w.tx, w.cpu = w.tx+tps*(at-last), now-before
		}
		last = at
	}
	return w, said, err
}
