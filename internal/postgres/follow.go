package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"manada/internal/durable"

	"manada/internal/cluster"
)

// Upstream is whom to follow, and under which name.
type Upstream struct {
	Host string
	// Addr is Host's address, "" when it is not known: a receiver that looks up
	// the name of a host that is gone does not hear that it shall end.
	Addr string
	Port int
	// Name is the application_name: a certified name ("b@e8"), or one that
	// nobody waits for ("b~8"). Epoch is the epoch in it.
	Name  string
	Epoch uint64
	Slot  string // replication slot on the upstream, "" for none
}

// ErrBarred: a promise on this disk forbids the epoch.
var ErrBarred = errors.New("barred by a promise")

// passfile is a libpq password file for one login; : and \ are escaped.
func passfileLine(role, password string) string {
	esc := strings.NewReplacer(`\`, `\\`, `:`, `\:`)
	return "*:*:*:" + role + ":" + esc.Replace(password) + "\n"
}

// conninfoQuote makes a value for a libpq connection string.
func conninfoQuote(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}

// conninfo is a connection string without a password.
func (i *Instance) conninfo(host string, port int, role, name, passfile string) string {
	s := fmt.Sprintf("host=%s port=%d user=%s application_name=%s passfile=%s connect_timeout=3 keepalives_idle=2 keepalives_interval=1 keepalives_count=3 tcp_user_timeout=5000 gssencmode=disable",
		conninfoQuote(host), port, role, conninfoQuote(name), conninfoQuote(passfile))
	if ca := i.cfg.TLS.CA; ca != "" {
		return s + " sslmode=verify-ca sslrootcert=" + conninfoQuote(ca)
	}
	return s + " sslmode=prefer"
}

// Follow renders the upstream, with a credential file of its own for the
// epoch, and reloads; when PostgreSQL is down it only renders. A promise for
// the end of an epoch bars every name up to it (ErrBarred, finding H3). Whether
// the node may bear the name is the caller's to know.
func (i *Instance) Follow(ctx context.Context, u Upstream) error {
	i.confMu.Lock()
	defer i.confMu.Unlock()
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
	line := passfileLine(cluster.RoleReplication, i.cfg.Passwords.Replication)
	if old, err := os.ReadFile(pass); err != nil || string(old) != line {
		if err := durable.Write(pass, []byte(line), durable.Options{}); err != nil {
			return err
		}
	}
	info := i.conninfo(u.Host, u.Port, cluster.RoleReplication, u.Name, pass)
	if u.Addr != "" {
		info += " hostaddr=" + conninfoQuote(u.Addr)
	}
	text := upstreamConf(info, u.Slot, i.cfg.RestoreCommand)
	if old, err := os.ReadFile(i.run(upstreamFile)); err != nil || string(old) != text {
		if err := durable.Write(i.run(upstreamFile), []byte(text), durable.Options{}); err != nil {
			return err
		}
	}
	if err := i.removePassfiles(pass); err != nil {
		return err
	}
	if err := i.reloadIfRunning(ctx); err != nil {
		return fmt.Errorf("follow %s: %w", u.Name, err)
	}
	return nil
}
