package herd

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"manada/internal/cluster"
	"manada/internal/config"
	"manada/internal/pki"
)

// URIOptions say which connection string is wanted.
type URIOptions struct {
	ReadOnly     bool   // the port that goes to standbys
	Database     string // default postgres
	User         string // default postgres
	ShowPassword bool   // the password in the clear instead of a passfile
	Inside       bool   // in containers: the address in their network
}

// URI is a libpq connection string of the herd's proxy. It names a 0600
// passfile in the herd's folder instead of a password.
func (h *Herd) URI(o URIOptions) (string, error) {
	p := h.Host("proxy")
	if p == nil {
		return "", fmt.Errorf("the herd in %s has no proxy", h.Dir)
	}
	port := p.Cfg.Ports.SQL
	if o.ReadOnly {
		port = p.Cfg.Ports.ReadOnly
	}
	return connString(h.Hosts[0].Cfg, p.Cfg.AdvertiseOn(port), true, filepath.Join(h.Dir, "pgpass"), o)
}

// HostURI is a connection string through addr, of a host that knows the
// superuser's password. Beyond loopback it checks the server's certificate.
func HostURI(c *config.Config, addr string, o URIOptions) (string, error) {
	return connString(c, addr, c.Loopback(), filepath.Join(c.RunDir, "pgpass"), o)
}

func connString(c *config.Config, addr string, loopback bool, passfile string, o URIOptions) (string, error) {
	if o.User == "" {
		o.User = cluster.RoleSuperuser
	}
	if o.Database == "" {
		o.Database = cluster.Database
	}
	u := url.URL{Scheme: "postgresql", Host: addr, Path: "/" + o.Database, User: url.User(o.User)}
	q := []string{}
	if !loopback {
		q = append(q, "sslmode=verify-full", "sslrootcert="+queryPath(filepath.Join(c.IdentityDir(), "ca.crt")))
	}
	if o.User == cluster.RoleSuperuser {
		secrets, err := pki.ReadSecrets(c.IdentityDir())
		if err != nil {
			return "", err
		}
		password, ok := secrets[cluster.RoleSuperuser]
		if !ok {
			return "", fmt.Errorf("this host does not know the password of %s: a proxy never does; ask on a data or witness host", o.User)
		}
		if o.ShowPassword {
			u.User = url.UserPassword(o.User, password)
		} else {
			if err := keepPassword(c, passfile, addr, o.User, password); err != nil {
				return "", err
			}
			q = append(q, "passfile="+queryPath(passfile))
		}
	}
	for i, kv := range q {
		if i > 0 {
			u.RawQuery += "&"
		}
		u.RawQuery += kv
	}
	return u.String(), nil
}

// keepPassword writes the password for the SQL ports of that host into the
// passfile, beside those of other hosts that have the same: what another host
// asks for it never gets.
func keepPassword(c *config.Config, passfile, addr, user, password string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("write password file: %w", err)
	}
	hosts := []string{host}
	if host == "localhost" || net.ParseIP(host).IsLoopback() {
		hosts = []string{"localhost", "127.0.0.1", "::1"}
	}
	esc := strings.NewReplacer(`\`, `\\`, `:`, `\:`)
	end := ":*:" + esc.Replace(user) + ":" + esc.Replace(password)
	lines := map[string]bool{}
	for _, h := range hosts {
		for _, p := range []string{port, fmt.Sprint(c.Ports.SQL), fmt.Sprint(c.Ports.ReadOnly)} {
			lines[esc.Replace(h)+":"+p+end] = true
		}
	}
	old, err := os.ReadFile(passfile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("write password file: %w", err)
	}
	for l := range strings.Lines(string(old)) {
		if l = strings.TrimSuffix(l, "\n"); strings.HasSuffix(l, end) && !strings.HasPrefix(l, "*") {
			lines[l] = true
		}
	}
	text := strings.Join(slices.Sorted(maps.Keys(lines)), "\n") + "\n"
	if text == string(old) {
		return nil
	}
	return writeFile(passfile, []byte(text), 0o600, config.CurrentAccount())
}

// queryPath escapes a path for a query, but leaves its slashes readable.
func queryPath(p string) string { return (&url.URL{Path: p}).EscapedPath() }
