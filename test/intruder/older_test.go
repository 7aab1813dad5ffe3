package intruder

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"manada/internal/cluster"
	"manada/internal/pki"
)

var all = []string{"master", "slave", "backup", "proxy"}

// restarted: every host loses its power at once. Before there is a store to ask,
// the voters let each other in by the list on disk, and nobody else.
func (s *site) restarted() {
	key := s.steal(copied(s, "", s.cfgs["slave"].IdentityDir()))
	s.powerOff()
	must(s, s.StartHost(s.ctx, "master"))
	s.wantOK("after a restart of all")
	for _, p := range key.mints(s) {
		if s.knock(p, "master") == nil {
			s.Errorf("%s got into the store", p.name)
		}
	}
}

func (s *site) powerOff() {
	s.Helper()
	for _, host := range all {
		must(s, s.KillHost(host))
	}
}

// older: a herd of a release that had no list of certificates. Its hosts are
// taken as they are found, until the list is closed.
func (s *site) older() {
	member := copied(s, "", s.cfgs["slave"].IdentityDir())
	key := s.steal(member)
	// The agents, who would write it again, do not see that the list goes.
	for _, pid := range s.programsNow() {
		if line, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline")); err == nil && bytes.Contains(line, []byte("\x00agent\x00")) {
			must(s, syscall.Kill(pid, syscall.SIGSTOP))
		}
	}
	must(s, s.withStore(member, "master", func(ctx context.Context, c *clientv3.Client) error {
		_, err := c.Delete(ctx, "/manada/"+s.cfgs["master"].Cluster+"/registry")
		return err
	}))
	s.powerOff()
	for _, host := range all {
		must(s, os.Remove(filepath.Join(s.cfgs[host].IdentityDir(), "registry.json")))
	}
	must(s, s.StartHost(s.ctx, "master"))
	s.wantOK("with a new program")
	var list cluster.Registry
	whole := func() bool {
		for _, host := range all {
			if !list.Has(host) {
				return false
			}
		}
		return list.Open
	}
	for end := time.Now().Add(20 * time.Second); !whole(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			s.Fatalf("not every host is in the list: %+v", list)
		}
		kvs, err := s.readStore(member, "master")
		must(s, err)
		for k, v := range kvs {
			if strings.HasSuffix(k, "/registry") {
				must(s, json.Unmarshal(v, &list))
			}
		}
	}
	// A removal closes it: the hosts that were found stay, what was not does not.
	gone := s.joined("y1", pki.KindData)
	if out, err := s.Manada(s.ctx, "node", "remove", "y1", "--yes"); err != nil {
		s.Fatalf("manada node remove y1: %v\n%s", err, out)
	}
	time.Sleep(5 * time.Second) // the promise
	keptOut := func() {
		for _, p := range append(key.mints(s), gone) {
			if s.knock(p, "master") == nil {
				s.Errorf("%s got into the store", p.name)
			}
		}
	}
	keptOut()
	s.settled()
	keptOut()
	for _, host := range all[:3] {
		if err := s.knock(copied(s, host, s.cfgs[host].IdentityDir()), "master"); err != nil {
			s.Errorf("%s is kept out: %v", host, err)
		}
	}
	s.wantOK("with a closed list")
}
