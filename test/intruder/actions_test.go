package intruder

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"manada/internal/cluster"
	"manada/internal/config"
	"manada/internal/pki"
	"manada/internal/verb"
)

// action is something that somebody tries; nil is success.
type action struct {
	name string
	try  func(*site, person) error
}

// actions are all that is tried with certificates. Those whose name begins with
// "public" are for anybody, with "never" for nobody.
func actions() []action {
	all := []action{
		{"public 8008 GET", web(http.MethodGet, "master", httpPort, "/v1/status")},
		{"public 8010 GET", web(http.MethodGet, "proxy", proxyPort, "/health")},
		{"public 8432 GET", web(http.MethodGet, "backup", backupPort, "/v1/status")},
		{"8008 POST", web(http.MethodPost, "master", httpPort, "/v1/switchover")},
		{"8008 DELETE", web(http.MethodDelete, "master", httpPort, "/v1/status")},
		{"8010 POST", web(http.MethodPost, "proxy", proxyPort, "/v1/switchover")},
		{"8432 list", web(http.MethodGet, "backup", backupPort, "/repo/list/")},
		{"never 8432 write", web(http.MethodPut, "backup", backupPort, "/repo/blob/intruder")},
		{"never 8432 another stanza", web(http.MethodPut, "backup", backupPort, "/repo/blob/archive/other/archive.info")},
		{"never 8432 overwrite", web(http.MethodPut, "backup", backupPort, "/repo/blob/backup/herd/backup.info")},
		{"never 8432 through latest", web(http.MethodPut, "backup", backupPort, "/repo/blob/backup/herd/latest/x")},
		{"never 8432 a backup without a lock", web(http.MethodPut, "backup", backupPort, "/repo/blob/backup/herd/20260101-000000F/x")},
		{"never 8432 link", web(http.MethodPut, "backup", backupPort, "/repo/link/backup/herd/latest?target=x")},
		{"never 8432 delete backups", web(http.MethodDelete, "backup", backupPort, "/repo/blob/backup?all=1")},
		{"never 8432 delete WAL", web(http.MethodDelete, "backup", backupPort, "/repo/blob/archive?all=1")},
		{"never 8432 delete one", web(http.MethodDelete, "backup", backupPort, "/repo/blob/backup/herd/backup.info")},
		{"never 8432 delete locks", web(http.MethodDelete, "backup", backupPort, "/repo/blob/lock?all=1")},
		{"never 8432 discard", web(http.MethodPost, "backup", backupPort, "/repo/keeper/discard")},
		{"never 8432 finish", web(http.MethodPost, "backup", backupPort, "/repo/keeper/finish")},
		{"never 8432 set aside", web(http.MethodPost, "backup", backupPort, "/repo/keeper/set-aside")},
		{"never 8432 any lock", web(http.MethodPost, "backup", backupPort, "/repo/lock/intruder")},
	}
	for _, host := range []string{"master", "slave", "backup"} {
		all = append(all,
			action{"2379 read " + host, func(s *site, p person) error { _, err := s.readStore(p, host); return err }},
			action{"2379 write " + host, func(s *site, p person) error { return s.writeStore(p, host) }},
			action{"2379 delete " + host, func(s *site, p person) error { return s.deleteStore(p, host) }},
			action{"2380 members " + host, web(http.MethodGet, host, storePeerPort, "/members")},
			action{"2380 raft " + host, rafts(host)},
			action{"7400 drain " + host, func(s *site, p person) error { return s.drains(p, host, p.node()) }},
			action{"never 7400 drain in another's name " + host, func(s *site, p person) error { return s.drains(p, host, "master") }},
		)
		for _, v := range verb.All {
			if v.Who != verb.Anyone && v.Name != verb.Drain.Name && v.Name != verb.PushBeats.Name { // Tokens, Older and people_test.go; above; a stream
				all = append(all, action{called(v) + " " + host, reaches(v, host)})
			}
		}
	}
	for _, v := range verb.Proxy {
		all = append(all, action{called(v) + " proxy", reaches(v, "proxy")})
	}
	return all
}

// tryFor bounds one try.
const tryFor = 5 * time.Second

// called is the action of asking a verb over the peers' port.
func called(v verb.Verb) string {
	if v.Who == verb.Local {
		return "never 7400 " + v.Name
	}
	return "7400 " + v.Name
}

// mayAsk says what the registry of verbs says of an action of the peers' port.
func mayAsk(name string, who verb.Who) bool {
	for _, v := range verb.All {
		rest, ok := strings.CutPrefix(name, called(v)+" ")
		if ok && !strings.Contains(rest, " ") && v.Who != verb.Local {
			return v.Who <= who
		}
	}
	return strings.HasPrefix(name, "7400 drain ")
}

// reaches asks a verb of a host; being heard is success. What would change something
// brings an argument that no verb takes, which is looked at only behind who asks.
func reaches(v verb.Verb, host string) func(*site, person) error {
	return func(s *site, p person) error {
		status, err := s.call(p, v.Method, host, peerPort, v.At("pools").Path, []byte(`{"intruder": true}`))
		switch {
		case err != nil:
			return err
		case status == http.StatusUnauthorized || status == http.StatusForbidden:
			return fmt.Errorf("status %d", status)
		case !v.Asks() && status != http.StatusBadRequest:
			s.Errorf("%s of %s took what it does not take: status %d", v.Name, host, status)
		}
		return nil
	}
}

// web makes a request of the person; an answer of success is success.
func web(method, host string, port func(*config.Ports) int, path string) func(*site, person) error {
	return func(s *site, p person) error {
		status, err := s.ask(p, method, host, port, path)
		if err == nil && (status < 200 || status > 299) {
			err = fmt.Errorf("status %d", status)
		}
		return err
	}
}

// drains makes the one POST that a proxy may make, in the name of a host: that no
// switchover is under way is the answer of who listens.
func (s *site) drains(p person, host, name string) error {
	body, err := json.Marshal(cluster.DrainAnswer{ID: "intruder", Proxy: name, Boot: "intruder", Hold: true})
	if err != nil {
		return err
	}
	status, err := s.call(p, http.MethodPost, host, peerPort, verb.Drain.Path, body)
	if err == nil && status != http.StatusConflict {
		err = fmt.Errorf("status %d", status)
	}
	return err
}

// node is whose certificate the person shows, "" for none.
func (p person) node() string {
	if p.pair == nil {
		return ""
	}
	c, err := x509.ParseCertificate(p.pair.Certificate[0])
	if err != nil {
		return ""
	}
	n, _ := pki.NameOf(c)
	return n.Node
}

// rafts speaks to etcd's raft: whatever it answers, it was reached.
func rafts(host string) func(*site, person) error {
	return func(s *site, p person) error {
		_, err := s.ask(p, http.MethodPost, host, storePeerPort, "/raft")
		return err
	}
}

func (s *site) ask(p person, method, host string, port func(*config.Ports) int, path string) (int, error) {
	return s.call(p, method, host, port, path, []byte("{}"))
}

func (s *site) call(p person, method, host string, port func(*config.Ports) int, path string, body []byte) (int, error) {
	scheme := "https://"
	if p := port(&s.cfgs[host].Ports); p == s.cfgs[host].Ports.HTTP || p == s.cfgs[host].Ports.ProxyHTTP {
		scheme = "http://" // on loopback
	}
	ctx, cancel := context.WithTimeout(s.ctx, tryFor)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, scheme+s.at(host, port)+path, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	tr := &http.Transport{TLSClientConfig: p.tls(), DisableKeepAlives: true}
	defer tr.CloseIdleConnections()
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	// A stream does not end; who got its beginning got in.
	_, _ = io.ReadFull(resp.Body, make([]byte, 1))
	return resp.StatusCode, nil
}

func (s *site) etcd(p person, host string) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{
		Endpoints: []string{"https://" + s.at(host, clientPort)}, TLS: p.tls(), Context: s.ctx,
		DialTimeout: tryFor, Logger: zap.NewNop(), MaxUnaryRetries: 1,
	})
}

// knock is the error with which a caller is refused: who is let in hears nothing.
// etcd's client would try again and again.
func (s *site) knock(p person, host string) error {
	c, err := (&tls.Dialer{Config: p.tls("h2")}).DialContext(s.ctx, "tcp", s.at(host, clientPort))
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	if _, err = c.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) || err == nil {
		return nil
	}
	return err
}

func (s *site) withStore(p person, host string, f func(context.Context, *clientv3.Client) error) error {
	if err := s.knock(p, host); err != nil {
		return err
	}
	c, err := s.etcd(p, host)
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(s.ctx, 2*time.Second)
	defer cancel()
	return f(ctx, c)
}

func (s *site) readStore(p person, host string) (map[string][]byte, error) {
	all := map[string][]byte{}
	err := s.withStore(p, host, func(ctx context.Context, c *clientv3.Client) error {
		resp, err := c.Get(ctx, "/", clientv3.WithPrefix())
		if err != nil {
			return err
		}
		for _, kv := range resp.Kvs {
			all[string(kv.Key)] = kv.Value
		}
		return nil
	})
	return all, err
}

func (s *site) writeStore(p person, host string) error {
	return s.withStore(p, host, func(ctx context.Context, c *clientv3.Client) error {
		_, err := c.Put(ctx, "/intruder", p.name)
		return err
	})
}

func (s *site) deleteStore(p person, host string) error {
	return s.withStore(p, host, func(ctx context.Context, c *clientv3.Client) error {
		_, err := c.Delete(ctx, "/intruder")
		return err
	})
}

var errNotCut = errors.New("it goes on")
