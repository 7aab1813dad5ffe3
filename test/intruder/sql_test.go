package intruder

import (
	"context"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"manada/internal/cluster"
)

// login is one way to log in with a password.
type login struct{ name, role, dsn string }

// logins are all that a copied folder's passwords are good for.
func (s *site) logins(p person) (all []login) {
	doors := map[string]string{"5432": s.at("master", pgPort), "5432 of the standby": s.at("slave", pgPort), "5431": s.at("proxy", sqlPort)}
	for role, password := range p.secrets {
		for door, at := range doors {
			for _, mode := range []string{"", " replication=true", " replication=database"} {
				if (role == cluster.RoleReplication) == (mode == "") {
					continue
				}
				all = append(all, login{door + " log in as " + role + mode, role, dsnOf(at, role, password) + mode})
			}
		}
	}
	return all
}

func dsnOf(at, role, password string) string {
	host, port, _ := net.SplitHostPort(at)
	return fmt.Sprintf("host=%s port=%s user=%s dbname=postgres password=%s", host, port, role, password)
}

// loginActions are the logins as what is tried.
func (s *site) loginActions(p person) (all []action) {
	for _, l := range s.logins(p) {
		all = append(all, action{l.name, func(s *site, p person) error {
			c, err := s.login(p, l.dsn)
			if err != nil {
				return err
			}
			return c.Close(s.ctx)
		}})
	}
	return all
}

func (s *site) login(p person, dsn string) (*pgconn.PgConn, error) {
	ctx, cancel := context.WithTimeout(s.ctx, tryFor)
	defer cancel()
	cfg, err := pgconn.ParseConfig(dsn + " sslmode=require connect_timeout=5")
	if err != nil {
		return nil, err
	}
	for i := range cfg.Fallbacks {
		cfg.Fallbacks[i].TLSConfig = p.tls()
	}
	cfg.TLSConfig = p.tls()
	return pgconn.ConnectConfig(ctx, cfg)
}

// holdLogins keeps every session open that the passwords open. All hosts of this
// herd are one machine: what comes under the roles that members use to replicate
// and rewind comes from a member's address, and goes on.
func (s *site) holdLogins(p person) (open []held) {
	s.Helper()
	doors := map[string]int{}
	for _, l := range s.logins(p) {
		if l.role == cluster.RoleReplication || l.role == cluster.RoleRewind {
			continue
		}
		c, err := s.login(p, l.dsn)
		if err != nil {
			continue
		}
		s.Cleanup(func() { c.Conn().Close() })
		door, _, _ := strings.Cut(l.name, " log in")
		doors[door]++
		open = append(open, held{l.name, func(by time.Time) error { return sessionEnds(c, by) }})
	}
	if len(doors) < 3 {
		s.Errorf("sessions before the removal: %v; this shows nothing", doors)
	}
	s.Logf("sessions open before the removal: %v", doors)
	return open
}

func sessionEnds(c *pgconn.PgConn, by time.Time) error {
	for {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		_, err := c.Exec(ctx, "select 1").ReadAll()
		cancel()
		switch {
		case err != nil:
			return nil
		case time.Now().After(by):
			return errNotCut
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// certificateIsNothing: PostgreSQL does not believe the removed host's
// certificate any more, whatever the password, as soon as those who stay have
// theirs of the new authority.
func (s *site) certificateIsNothing(gone person) {
	s.Helper()
	member := copied(s, "", s.cfgs["master"].IdentityDir())
	for _, host := range []string{"master", "slave"} {
		dsn := dsnOf(s.at(host, pgPort), cluster.RoleReplication, member.secrets[cluster.RoleReplication]) + " replication=true"
		var err error
		for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
			var c *pgconn.PgConn
			if c, err = s.login(gone, dsn); err != nil {
				break
			}
			c.Conn().Close()
			if time.Now().After(end) {
				s.Fatalf("PostgreSQL of %s believes the certificate of %s for ever", host, gone.name)
			}
		}
		if !strings.Contains(err.Error(), "unknown certificate authority") {
			s.Errorf("the certificate of %s at %s: %v", gone.name, host, err)
		}
		now := copied(s, "", s.cfgs["master"].IdentityDir())
		c, err := s.login(now, dsn)
		if err != nil {
			s.Errorf("a member's certificate at %s: %v", host, err)
			continue
		}
		c.Conn().Close()
	}
}
