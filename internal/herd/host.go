package herd

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"manada/internal/config"
	"manada/internal/datadir"
	"manada/internal/durable"
	"manada/internal/peer"
	"manada/internal/pki"
	"manada/internal/postgres"
	"manada/internal/process"
	"manada/internal/verb"
)

// Prepare makes the folders of a host and, when root does it, gives them to the
// account that will run there. What exists keeps its contents; a folder that
// belongs to somebody else is an error, except to root.
func Prepare(c *config.Config, a config.Account) error {
	dirs := []string{c.DataDir, c.RunDir, c.StateDir(), c.IdentityDir(), c.LogDir(), c.StoreDir()}
	if c.Has(config.Repository) {
		dirs = append(dirs, c.Backup.RepoPath)
	}
	for i, d := range dirs {
		mode := os.FileMode(0o700)
		if i == 0 {
			mode = 0o755 // configuration and logs may be read by others
		}
		if d == c.LogDir() {
			mode = 0o750
		}
		if err := MakeDir(d, mode, a); err != nil {
			return err
		}
	}
	return nil
}

// MakeDir makes a folder and what is missing above it, owned by the account.
func MakeDir(dir string, mode os.FileMode, a config.Account) error {
	st, err := os.Stat(dir)
	if err == nil && !st.IsDir() {
		return fmt.Errorf("make folder: %s is a file", dir)
	}
	if errors.Is(err, os.ErrNotExist) {
		if up := filepath.Dir(dir); up != dir {
			if err := MakeDir(up, 0o755, rootIfRoot(a)); err != nil {
				return err
			}
		}
		if err := os.Mkdir(dir, mode); err != nil && !errors.Is(err, os.ErrExist) {
			return fmt.Errorf("make folder: %w", err)
		}
		return own(dir, a)
	}
	if err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	return takeNew(dir, st, a)
}

// takeNew gives the account a folder of root's that nothing is in: a mount
// point, the usual way to give data_dir a disk of its own.
func takeNew(dir string, st os.FileInfo, a config.Account) error {
	if s, ok := st.Sys().(*syscall.Stat_t); !ok || os.Geteuid() != 0 || s.Uid != 0 || a.UID == 0 {
		return nil
	}
	holds, err := datadir.Holds(dir)
	if err != nil {
		return fmt.Errorf("look into folder: %w", err)
	}
	if holds != "" {
		return nil
	}
	return own(dir, a)
}

// rootIfRoot: what is missing above a folder stays root's when root makes it.
func rootIfRoot(a config.Account) config.Account {
	if os.Geteuid() == 0 {
		return config.CurrentAccount()
	}
	return a
}

// own gives a file to the account, which only root can.
func own(path string, a config.Account) error {
	if os.Geteuid() != 0 {
		return nil
	}
	if err := os.Lchown(path, a.UID, a.GID); err != nil {
		return fmt.Errorf("give %s to user %s: %w", path, a.Name, err)
	}
	return nil
}

// Founding says whether the herd's authority has not reached the store yet, so
// that no other host can have joined: until then founding may be done again.
func Founding(c *config.Config) bool {
	_, err := os.Stat(filepath.Join(c.IdentityDir(), "ca-key.sealed"))
	return err == nil
}

// Found makes this host the first of a new herd: folders, the authority, its
// identity and the passwords. Done again it does nothing, until the herd has
// begun to live: then it is pki.ErrExists.
func Found(c *config.Config, a config.Account) error {
	if c.Kind() == pki.KindProxy || !c.Has(config.Database) || !c.Has(config.Store) {
		return errors.New("found herd: the first host needs the roles database and store")
	}
	if err := NoForeignData(c); err != nil {
		return err
	}
	if err := Prepare(c, a); err != nil {
		return err
	}
	if c.HasIdentity() && !Founding(c) {
		id, err := pki.Load(c.IdentityDir())
		if err != nil {
			return err
		}
		return fmt.Errorf("%w: %s of cluster %s", pki.ErrExists, id.Node(), id.Cluster())
	}
	// What makes a founder comes before the identity: with the identity the
	// host may start.
	if err := process.WriteFacts(c, process.Facts{Founder: true}); err != nil {
		return err
	}
	if err := own(factsFile(c), a); err != nil {
		return err
	}
	_, err := pki.Found(c.IdentityDir(), c.Cluster, c.Node, c.Kind(), hostNames(c))
	return err
}

// NoForeignData refuses a host below whose data_dir there is a database that no
// herd made: a new one beside it would shadow it, and applications would write
// into an empty database without a word. A host that has its identity is not
// asked: what is there it has made, or it was asked then.
func NoForeignData(c *config.Config) error {
	if c.HasIdentity() {
		return nil
	}
	dir, version, err := postgres.Foreign(c.DataDir)
	if err != nil {
		return fmt.Errorf("look for a database in %s: %w", c.DataDir, err)
	}
	if dir == "" {
		return nil
	}
	return misused("its data is not taken over in place: start it as before, pg_dumpall it, and load that into the new herd; "+
		"then move "+dir+" away, or, to leave it where it is, touch "+filepath.Join(dir, postgres.IgnoredFile),
		"%s holds a database of PostgreSQL %s that is not Manada's: no herd is made beside it", dir, version)
}

// hostNames are the names and addresses under which others reach this host.
func hostNames(c *config.Config) []string {
	names := []string{c.Advertise}
	if ip := net.ParseIP(c.Listen); ip != nil && !ip.IsUnspecified() && c.Listen != c.Advertise {
		names = append(names, c.Listen)
	}
	return names
}

// Join makes this host a member of the herd whose member answers at one of the
// addresses. It tries once; refusals are *pki.JoinError. A join that was
// interrupted is completed.
func Join(ctx context.Context, c *config.Config, a config.Account, addrs []string, secret, version string) (via string, err error) {
	if err := NoForeignData(c); err != nil {
		return "", err
	}
	if err := Prepare(c, a); err != nil {
		return "", err
	}
	if c.HasIdentity() && !hasFacts(c) {
		return askFacts(ctx, c, a, addrs)
	}
	j, err := pki.Join(ctx, addrs, pki.JoinOptions{Dir: c.IdentityDir(), Cluster: c.Cluster, Node: c.Node, Kind: c.Kind(),
		Hosts: hostNames(c), Secret: secret, Version: version})
	if err != nil {
		return "", err
	}
	if err := keepFacts(c, j.Facts, a); err != nil {
		return "", err
	}
	return j.Via, nil
}

// askFacts completes a join that ended between identity and facts: with the
// identity this host is a member already and may ask.
func askFacts(ctx context.Context, c *config.Config, a config.Account, addrs []string) (string, error) {
	id, err := CheckIdentity(c)
	if err != nil {
		return "", err
	}
	cl := peer.Client{TLS: func(string) *tls.Config { return id.ClientTLSAny() }}
	err = errors.New("ask what the herd is: no address of a member was given")
	for _, addr := range addrs {
		var facts json.RawMessage
		if err = cl.Call(ctx, addr, "", verb.Facts, nil, &facts); err == nil {
			return addr, keepFacts(c, facts, a)
		}
	}
	return "", err
}

// Member says whether this host belongs to a herd, completely.
func Member(c *config.Config) bool { return c.HasIdentity() && hasFacts(c) }

func factsFile(c *config.Config) string { return filepath.Join(c.StateDir(), "herd.json") }

func hasFacts(c *config.Config) bool {
	_, err := os.Stat(factsFile(c))
	return err == nil
}

// keepFacts keeps what a member said of the herd where this host's processes
// read it.
func keepFacts(c *config.Config, facts json.RawMessage, a config.Account) error {
	if err := process.TakeFacts(c, facts); err != nil {
		return err
	}
	return own(factsFile(c), a)
}

// CheckIdentity loads the identity of a host and holds it against the
// configuration.
func CheckIdentity(c *config.Config) (*pki.Identity, error) {
	id, err := pki.Load(c.IdentityDir())
	if err != nil {
		return nil, err
	}
	want := pki.Name{Cluster: c.Cluster, Node: c.Node, Kind: c.Kind()}
	if got := id.Name(); got != want {
		return nil, fmt.Errorf("the identity in %s is of host %s (%s) of cluster %s, but %s says %s (%s) of cluster %s",
			c.IdentityDir(), got.Node, got.Kind, got.Cluster, c.File, want.Node, want.Kind, want.Cluster)
	}
	return id, nil
}

// writeFile writes a file durably, owned by the account where root writes.
func writeFile(path string, data []byte, mode os.FileMode, a config.Account) error {
	o := durable.Options{Mode: mode}
	if os.Geteuid() == 0 {
		o.Owner = &durable.Owner{UID: a.UID, GID: a.GID}
	}
	return durable.Write(path, data, o)
}

// KnownPeers are the agents that the host remembers, node to address; a hint.
func KnownPeers(c *config.Config) map[string]string {
	f, err := process.ReadFacts(c)
	if err != nil {
		return nil
	}
	return f.Peers
}
