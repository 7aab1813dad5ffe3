package herd

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
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
	Format       Format // "": LibpqForm
}

// URI is a connection string of the herd's proxy. It names a 0600 passfile in the
// herd's folder instead of a password.
func (h *Herd) URI(o URIOptions) (string, error) {
	var addrs []string
	for _, x := range h.Hosts {
		switch {
		case !x.Cfg.Has(config.ProxyRole):
		case o.ReadOnly:
			addrs = append(addrs, x.Cfg.AdvertiseOn(x.Cfg.Ports.ReadOnly))
		default:
			addrs = append(addrs, x.Cfg.AdvertiseOn(x.Cfg.Ports.SQL))
		}
	}
	if len(addrs) == 0 {
		return "", fmt.Errorf("the herd in %s has no proxy", h.Dir)
	}
	return connString(h.Hosts[0].Cfg, addrs, true, filepath.Join(h.Dir, "pgpass"), o)
}

// HostURI is a connection string through the proxies at addrs, the first before the
// others, of a host that knows the superuser's password. Beyond loopback it checks the
// server's certificate.
func HostURI(c *config.Config, addrs []string, o URIOptions) (string, error) {
	return connString(c, addrs, c.Loopback(), filepath.Join(c.RunDir, "pgpass"), o)
}

func connString(c *config.Config, addrs []string, loopback bool, passfile string, o URIOptions) (string, error) {
	f := Connection{Addrs: addrs, User: cmp.Or(o.User, cluster.RoleSuperuser), Database: cmp.Or(o.Database, cluster.Database)}
	if !loopback {
		f.RootCert = filepath.Join(c.IdentityDir(), "ca.crt")
	}
	if f.User == cluster.RoleSuperuser {
		secrets, err := pki.ReadSecrets(c.IdentityDir())
		if err != nil {
			return "", err
		}
		password, ok := secrets[cluster.RoleSuperuser]
		if !ok {
			return "", fmt.Errorf("this host does not know the password of %s: a proxy never does; ask on a data or witness host", f.User)
		}
		if o.ShowPassword {
			f.Password = password
		} else {
			for _, addr := range addrs {
				if err := keepPassword(c, passfile, addr, f.User, password); err != nil {
					return "", err
				}
			}
			f.Passfile = passfile
		}
	}
	return f.Text(o.Format)
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
	end := ":*:" + passfileEscape.Replace(user) + ":" + passfileEscape.Replace(password)
	lines := map[string]bool{}
	for _, h := range hosts {
		for _, p := range []string{port, fmt.Sprint(c.Ports.SQL), fmt.Sprint(c.Ports.ReadOnly)} {
			lines[passfileEscape.Replace(h)+":"+p+end] = true
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
