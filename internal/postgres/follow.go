package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"manada/internal/cluster"
	"manada/internal/durable"
)

// Endpoint is where the PostgreSQL of another node listens. Addrs are IP
// addresses, never names: a receiver that looks up the name of a host that is
// gone does not hear that it shall end. Node is what the certificate there must
// say, whatever the address.
type Endpoint struct {
	Node  string
	Addrs []string
	Port  int
}

// Upstream is whom to follow, and under which name.
type Upstream struct {
	Endpoint
	// Name is the application_name: a certified name ("b@e8"), or one that
	// nobody waits for ("b~8"). Epoch is the epoch in it.
	Name  string
	Epoch uint64
	Slot  string // replication slot on the upstream, "" for none
}

// ErrBarred: a promise on this disk forbids the epoch.
var ErrBarred = errors.New("barred by a promise")

// passfileLine is a line of a libpq password file for one login at one node; :
// and \ are escaped.
func passfileLine(node, role, password string) string {
	esc := strings.NewReplacer(`\`, `\\`, `:`, `\:`)
	return node + ":*:*:" + role + ":" + esc.Replace(password) + "\n"
}

// conninfoQuote makes a value for a libpq connection string.
func conninfoQuote(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}

// conninfo is a connection string for libpq, without a password. Only the node
// itself is talked to: its certificate must bear its name (verify-full compares
// host, which is the node and never an address), the password is proved and
// never told, and the proof is bound to that very TLS session. Ours shows who
// asks.
func (i *Instance) conninfo(to Endpoint, role, name, passfile string) (string, error) {
	if len(to.Addrs) == 0 {
		return "", fmt.Errorf("connect to %s: no address of it is known", to.Node)
	}
	hosts := strings.TrimSuffix(strings.Repeat(to.Node+",", len(to.Addrs)), ",")
	s := fmt.Sprintf("host=%s hostaddr=%s port=%d user=%s application_name=%s passfile=%s connect_timeout=3 keepalives_idle=2 keepalives_interval=1 keepalives_count=3 tcp_user_timeout=5000 gssencmode=disable",
		conninfoQuote(hosts), conninfoQuote(strings.Join(to.Addrs, ",")), to.Port, role, conninfoQuote(name), conninfoQuote(passfile))
	t := i.cfg.TLS
	if t.CA == "" {
		return s + " sslmode=disable", nil
	}
	return s + " sslmode=verify-full channel_binding=require ssl_min_protocol_version=TLSv1.2" +
		" sslrootcert=" + conninfoQuote(t.CA) + " sslcert=" + conninfoQuote(t.Cert) + " sslkey=" + conninfoQuote(t.Key), nil
}

// Follow renders the upstream, with a credential file of its own for the
// epoch, and reloads; when PostgreSQL is down it only renders. A promise for
// the end of an epoch bars every name up to it (ErrBarred, finding H3). Whether
// the node may bear the name is the caller's to know.
func (i *Instance) Follow(ctx context.Context, u Upstream) error {
	i.confMu.Lock()
	defer i.confMu.Unlock()
	return i.follow(ctx, u)
}

// Readdress follows the same node under the same name at the addresses that it
// has now. It does nothing when another name, or none, is rendered.
func (i *Instance) Readdress(ctx context.Context, u Upstream) error {
	i.confMu.Lock()
	defer i.confMu.Unlock()
	if i.renderedUpstream() != u.Name {
		return nil
	}
	return i.follow(ctx, u)
}

// follow is Follow with confMu held.
func (i *Instance) follow(ctx context.Context, u Upstream) error {
	p, err := i.Promise()
	if err != nil {
		return fmt.Errorf("follow %s: %w", u.Name, err)
	}
	if p != nil && p.Epoch >= u.Epoch {
		return fmt.Errorf("follow %s: %w for the end of epoch %d", u.Name, ErrBarred, p.Epoch)
	}
	if p, err := i.Poison(); err != nil || p != nil {
		return errors.Join(err, fmt.Errorf("follow %s: %w", u.Name, ErrPoisoned))
	}
	pass := i.run(fmt.Sprintf("replication.e%d.pgpass", u.Epoch))
	info, err := i.conninfo(u.Endpoint, cluster.RoleReplication, u.Name, pass)
	if err != nil {
		return fmt.Errorf("follow %s: %w", u.Name, err)
	}
	changed := false
	for _, f := range []struct{ path, text string }{
		{pass, passfileLine(u.Node, cluster.RoleReplication, i.cfg.Passwords.Replication)},
		{i.run(upstreamFile), upstreamConf(info, u.Slot, whileThere(pass, i.cfg.RestoreCommand))},
	} {
		if old, err := os.ReadFile(f.path); err == nil && string(old) == f.text {
			continue
		}
		if err := durable.Write(f.path, []byte(f.text), durable.Options{}); err != nil {
			return err
		}
		changed = true
	}
	if err := i.removePassfiles(pass); err != nil {
		return err
	}
	if !changed {
		return nil
	}
	if err := i.reloadIfRunning(ctx); err != nil {
		return fmt.Errorf("follow %s: %w", u.Name, err)
	}
	return nil
}

// whileThere makes a restore_command that fetches nothing any more, and says so
// in a millisecond, once the credential file is gone. The startup process asks
// the archive at the moment when its upstream dies, and after that for history
// files, with the command that was set then: it looks at its settings no more
// before it is promoted, which would wait for each of these calls.
func whileThere(passfile, command string) string {
	if command == "" {
		return ""
	}
	quoted := strings.ReplaceAll("'"+strings.ReplaceAll(passfile, "'", `'\''`)+"'", "%", "%%")
	return "test -e " + quoted + " && exec " + command
}
