package herd

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"manada/internal/config"
)

// plan is one host of a herd on one machine.
type plan struct {
	name  string
	roles []string
	ports config.Ports
}

// plans are the hosts in the order in which they start: the founder first, so
// that the others have somebody to join; the proxy, which needs nobody's vote,
// last.
func plans() []plan {
	base := config.Ports{PostgreSQL: 5432, SQL: 5431, ReadOnly: 5430, StoreCli: 2379, StorePeer: 2380,
		Peer: 7400, HTTP: 8008, ProxyHTTP: 8010, Backup: 8432}
	nth := func(n, http int) config.Ports {
		p := base
		p.PostgreSQL += n
		p.StoreCli += 2 * n
		p.StorePeer += 2 * n
		p.Peer += n
		p.HTTP = http
		return p
	}
	return []plan{
		{"master", []string{"database", "store"}, nth(0, 8008)},
		{"slave", []string{"database", "store"}, nth(1, 8009)},
		{"backup", []string{"store", "repository"}, nth(2, 8011)}, // 8010 is the proxy's
		{"proxy", []string{"proxy"}, nth(3, 8012)},
	}
}

// Herd is a herd on one machine.
type Herd struct {
	Dir   string // the folder that was named: herd.json, pgpass
	File  config.HerdFile
	Hosts []*Host
	acct  config.Account // that runs the hosts
}

// Host is one of its hosts.
type Host struct {
	Name string
	Cfg  *config.Config
}

// Host finds a host by name; nil when there is none.
func (h *Herd) Host(name string) *Host {
	i := slices.IndexFunc(h.Hosts, func(x *Host) bool { return x.Name == name })
	if i < 0 {
		return nil
	}
	return h.Hosts[i]
}

// ErrNone says that a folder holds no herd.
var ErrNone = errors.New("no herd here")

// Open reads the herd of a folder.
func Open(dir string) (*Herd, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open herd: %w", err)
	}
	f, err := config.ReadHerdFile(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s holds no %s", ErrNone, dir, config.HerdFileName)
	}
	if err != nil {
		return nil, err
	}
	h := &Herd{Dir: dir, File: f}
	for _, name := range f.Hosts {
		// Overrides are for the host on which a command is typed, not for four
		// hosts at once: no environment here.
		c, err := config.Load(f.HostFile(name), nil)
		if err != nil {
			return nil, err
		}
		h.Hosts = append(h.Hosts, &Host{name, c})
	}
	if len(h.Hosts) == 0 {
		return nil, fmt.Errorf("%s names no host", filepath.Join(dir, config.HerdFileName))
	}
	h.acct, err = h.Hosts[0].Cfg.RunAs()
	return h, err
}

// runBase is where the sockets go when the paths below the data folder would be
// too long for them: a short folder named after it. "" when they are not.
func runBase(data string) string {
	if len(data)+len("/master/run/.s.PGSQL.54321.lock") <= 100 {
		return ""
	}
	h := sha256.Sum256([]byte(data))
	return "/tmp/manada-" + hex.EncodeToString(h[:5])
}

// render writes the configuration of a host. join is the address of the
// founder, "" for the founder itself.
func render(name string, p plan, data, user, join string) string {
	var b strings.Builder
	w := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	w("# Host %s of the herd %s, made by `manada up`. `manada config show -c FILE` prints", p.name, name)
	w("# every value; deploy/manada.example.yaml explains the keys.")
	w("cluster: %s\nnode: %s\nroles: [%s]", name, p.name, strings.Join(p.roles, ", "))
	if user != "" {
		w("user: %s", user)
	}
	w("data_dir: .")
	if r := runBase(data); r != "" {
		w("run_dir: %s", filepath.Join(r, p.name))
	}
	w("listen: 127.0.0.1\nports:")
	for _, u := range portLines(p) {
		w("  %s: %d", strings.TrimPrefix(u.Key, "ports."), u.Port)
	}
	if join != "" {
		w("join:\n  addresses: [%q]\n  token_file: join.token", join)
	}
	return b.String()
}

// portLines are the ports that the host uses.
func portLines(p plan) []config.UsedPort {
	c := config.Config{Roles: p.roles, Ports: p.ports}
	return c.UsedPorts()
}

// writeHerd writes herd.json; with it the herd exists.
func (h *Herd) writeHerd() error {
	b, err := json.MarshalIndent(h.File, "", "  ")
	if err != nil {
		return fmt.Errorf("write herd: %w", err)
	}
	return writeFile(filepath.Join(h.Dir, config.HerdFileName), append(b, '\n'), 0o644, config.CurrentAccount())
}
