package herd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"manada/internal/config"
	"manada/internal/pki"
)

// public is a folder that any user can enter.
func public(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "mh")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestPortsDefaultWhereFree(t *testing.T) {
	p := pickerAlone(t)
	p.free = func(int) bool { return true }
	for _, pl := range plans() {
		got, err := p.pickAll(pl.name, pl.roles, pl.ports)
		if err != nil || got != pl.ports {
			t.Errorf("%s: %+v, %v; want %+v", pl.name, got, err, pl.ports)
		}
	}
	if len(p.said) > 0 {
		t.Errorf("said %q", p.said)
	}
}

func TestPortsMoveAsideAndAreSaid(t *testing.T) {
	p := pickerAlone(t)
	p.free = func(port int) bool { return port != 5431 && port != 15431 && port != 7400 }
	proxy := plans()[3]
	got, err := p.pickAll(proxy.name, proxy.roles, proxy.ports)
	if err != nil || got.SQL != 25431 || got.ReadOnly != 5430 || got.Peer != proxy.ports.Peer {
		t.Errorf("%+v, %v", got, err)
	}
	if !slices.Equal(p.said, []string{"port 5431 is taken: the proxy listens on 25431"}) {
		t.Errorf("said %q", p.said)
	}
	p.free = func(int) bool { return false }
	if _, err := p.pick("anything", 60000); err == nil {
		t.Error("found a port although none is free")
	}
}

// Told from where, the whole herd stands there, in order.
func TestPortsFromThereOn(t *testing.T) {
	p := pickerAlone(t)
	p.from, p.free = 21000, func(port int) bool { return port != 21000 && port != 21003 }
	seen := 0
	for _, pl := range plans() {
		got, err := p.pickAll(pl.name, pl.roles, pl.ports)
		if err != nil {
			t.Fatal(err)
		}
		pl.ports = got
		for _, u := range portLines(pl) {
			if u.Port <= 21000 || u.Port > 21000+40 || u.Port == 21003 {
				t.Errorf("%s of %s: %d", u.Key, pl.name, u.Port)
			}
			seen++
		}
	}
	if seen != len(p.used) {
		t.Errorf("%d ports are used, %d were picked", seen, len(p.used))
	}
	if !slices.Equal(p.said, []string{"port 21000 is taken: master's PostgreSQL listens on 21001", "port 21003 is taken: " + strings.TrimPrefix(p.said[1], "port 21003 is taken: ")}) {
		t.Errorf("said %q", p.said)
	}
	p.from = 65535
	if _, err := p.pick("the last", 1); err != nil {
		t.Error(err)
	}
	if got, err := p.pick("one more", 1); err == nil {
		t.Errorf("port %d was found", got)
	}
}

// pickerAlone does not mind what runs on this machine.
func pickerAlone(t *testing.T) *portPicker {
	p := newPortPicker(0)
	p.mark = func(int) (net.Listener, bool) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		return l, err == nil
	}
	t.Cleanup(p.release)
	return p
}

func TestTwoPickersNeverChooseTheSamePort(t *testing.T) {
	a, b := newPortPicker(0), newPortPicker(0)
	defer a.release()
	defer b.release()
	x, err := a.pick("a", 23456)
	if err != nil {
		t.Fatal(err)
	}
	if y, err := b.pick("b", x); err != nil || y == x {
		t.Errorf("both chose %d, %v", y, err)
	}
	a.release()
	c := newPortPicker(0)
	defer c.release()
	if z, err := c.pick("c", x); err != nil || z != x {
		t.Errorf("%d was let go, yet %d was chosen, %v", x, z, err)
	}
}

func TestPortFree(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	if portFree(port) {
		t.Error("a port on which we listen counts as free")
	}
	// One that listens on every address is in the way, too.
	all, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer all.Close()
	if portFree(all.Addr().(*net.TCPAddr).Port) {
		t.Error("a port that is taken on every address counts as free")
	}
}

// The hosts of a herd do not get into each other's way, and what is rendered is
// what is read.
func TestRender(t *testing.T) {
	used := map[int]string{}
	for _, p := range plans() {
		text := render("orders", p, "/srv/herd", "postgres", "127.0.0.1:7400")
		c, err := config.Parse("/srv/herd/"+p.name+"/manada.yaml", []byte(text), nil)
		if err != nil {
			t.Fatalf("%s:\n%s\n%v", p.name, text, err)
		}
		if c.Node != p.name || c.Cluster != "orders" || c.DataDir != "/srv/herd/"+p.name || !slices.Equal(c.Roles, p.roles) {
			t.Errorf("%s: %+v", p.name, c)
		}
		if c.Join.TokenFile != "/srv/herd/"+p.name+"/join.token" || !c.Loopback() {
			t.Errorf("%s: join %+v", p.name, c.Join)
		}
		for _, u := range c.UsedPorts() {
			if used[u.Port] != "" {
				t.Errorf("port %d is %s's and %s's", u.Port, used[u.Port], p.name)
			}
			used[u.Port] = p.name
		}
	}
	if plans()[0].ports.PostgreSQL != 5432 || plans()[1].ports.PostgreSQL != 5433 {
		t.Error("master and slave do not have the ports of the seed")
	}
}

func TestLongPathsGetAShortRunDir(t *testing.T) {
	deep := "/srv/" + strings.Repeat("deep/", 20) + "herd"
	p := plans()[0]
	c, err := config.Parse(deep+"/master/manada.yaml", []byte(render("h", p, deep, "", "")), nil)
	if err != nil {
		t.Fatal(err)
	}
	if sock := filepath.Join(c.RunDir, fmt.Sprintf(".s.PGSQL.%d", p.ports.PostgreSQL)); len(sock) > 100 {
		t.Errorf("socket path of %d bytes: %s", len(sock), sock)
	}
	if runBase("/srv/herd") != "" {
		t.Error("a short path needs no folder elsewhere")
	}
}

func TestDataDirOfAnUnreachableFolder(t *testing.T) {
	root := public(t)
	old := farDir
	farDir = filepath.Join(root, "far")
	defer func() { farDir = old }()
	shut := filepath.Join(root, "shut")
	if err := os.MkdirAll(filepath.Join(shut, "herd"), 0o700); err != nil {
		t.Fatal(err)
	}
	stranger := config.Account{Name: "nobody", UID: 65534, GID: 65534}
	dir := filepath.Join(shut, "herd")
	data, blocked, err := dataDir(dir, "orders", stranger)
	if err != nil || data != filepath.Join(farDir, "orders") || blocked == "" {
		t.Fatalf("data %s, blocked at %q, %v", data, blocked, err)
	}
	// The remains of an interrupted up of this folder are used again; the data
	// of another herd is not.
	write := func(path, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(data, ownerFile), dir+"\n")
	if again, _, err := dataDir(dir, "orders", stranger); err != nil || again != data {
		t.Errorf("interrupted: %s, %v", again, err)
	}
	write(filepath.Join(data, "master", "identity", "identity.json"), "{}")
	if other, _, err := dataDir(dir, "orders", stranger); err != nil || other == data {
		t.Errorf("a herd that lives there: %s, %v", other, err)
	}
	// We reach our own folder.
	if data, blocked, err := dataDir(dir, "orders", config.CurrentAccount()); err != nil || data != dir || blocked != "" {
		t.Errorf("reachable: %s %s %v", data, blocked, err)
	}
}

func TestCheckEmpty(t *testing.T) {
	dir := t.TempDir()
	if err := checkEmpty(dir); err != nil {
		t.Error(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "master", "identity"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := checkEmpty(dir); err != nil {
		t.Errorf("what an interrupted up leaves: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "master", "identity", "identity.json"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := checkEmpty(dir); err == nil {
		t.Error("hosts of a herd would be written over")
	}
	other := t.TempDir()
	if err := os.WriteFile(filepath.Join(other, "thesis.txt"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := checkEmpty(other); err == nil || !strings.Contains(err.Error(), "thesis.txt") {
		t.Errorf("somebody's folder: %v", err)
	}
}

func hostConfig(t *testing.T, dir, node, roles string) *config.Config {
	t.Helper()
	c, err := config.Parse(filepath.Join(dir, node, "manada.yaml"), []byte("cluster: orders\nnode: "+node+"\nroles: ["+roles+"]\ndata_dir: .\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestFound(t *testing.T) {
	dir, me := t.TempDir(), config.CurrentAccount()
	c := hostConfig(t, dir, "pg1", "database, store")
	if Member(c) {
		t.Fatal("member of a herd before there is one")
	}
	for range 2 { // the second one finds it done
		if err := Found(c, me); err != nil {
			t.Fatal(err)
		}
	}
	if id, err := CheckIdentity(c); err != nil || id.Node() != "pg1" || !Member(c) || !Founding(c) {
		t.Errorf("identity %v, %v", id, err)
	}
	// Once the key lies in the store the herd lives: founding again is refused.
	if err := pki.FinishFounding(c.IdentityDir()); err != nil {
		t.Fatal(err)
	}
	if err := Found(c, me); !errors.Is(err, pki.ErrExists) {
		t.Errorf("founded a living herd anew: %v", err)
	}
	if err := Found(hostConfig(t, dir, "w1", "store"), me); err == nil {
		t.Error("a witness founded a herd")
	}
	// The configuration must be of the same host.
	c.Node = "pg2"
	if _, err := CheckIdentity(c); err == nil || !strings.Contains(err.Error(), "pg1 (data)") {
		t.Errorf("identity of another host: %v", err)
	}
}

func TestSecondUpIsKeptAway(t *testing.T) {
	o := Options{Dir: t.TempDir()}
	unlock, err := lockDir(&o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockDir(&o); err == nil || !strings.Contains(err.Error(), "another manada up or down") {
		t.Errorf("a second one: %v", err)
	}
	unlock()
	unlock, err = lockDir(&o)
	if err != nil {
		t.Fatal(err)
	}
	unlock()
}

func TestURI(t *testing.T) {
	dir := t.TempDir()
	c := hostConfig(t, dir, "pg1", "database, store, proxy")
	if err := Found(c, config.CurrentAccount()); err != nil {
		t.Fatal(err)
	}
	uri, err := HostURI(c, []string{"127.0.0.1:5431"}, URIOptions{})
	if err != nil {
		t.Fatal(err)
	}
	passfile := filepath.Join(c.RunDir, "pgpass")
	if uri != "postgresql://postgres@127.0.0.1:5431/postgres?passfile="+passfile {
		t.Error(uri)
	}
	st, err := os.Stat(passfile)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("passfile: %v %v", st, err)
	}
	secrets, err := pki.ReadSecrets(c.IdentityDir())
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(uri, secrets["postgres"]) {
		t.Error("the password stands in the URI")
	}
	uri, err = HostURI(c, []string{"127.0.0.1:5431"}, URIOptions{ShowPassword: true, Database: "app"})
	if err != nil || !strings.Contains(uri, ":"+secrets["postgres"]+"@127.0.0.1:5431/app") {
		t.Errorf("%s %v", uri, err)
	}
	c.Listen = "10.0.0.1"
	uri, err = HostURI(c, []string{"10.0.0.1:5431", "10.0.0.2:5431"}, URIOptions{User: "app"})
	if err != nil || uri != "postgresql://app@10.0.0.1:5431,10.0.0.2:5431/postgres?sslmode=verify-full&sslrootcert="+filepath.Join(c.IdentityDir(), "ca.crt") {
		t.Errorf("beyond loopback: %s %v", uri, err)
	}
}

func TestPortsOfARunningHostAreLeftAlone(t *testing.T) {
	c := &config.Config{Roles: []string{"repository"}, Ports: config.Ports{Peer: 24561, HTTP: 24562, Backup: 24563}}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { KeepPorts(ctx, c); close(ended) }()
	defer func() { cancel(); <-ended }()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		p := newPortPicker(0)
		got, err := p.pick("x", 24562) // nobody listens there
		p.release()
		if err != nil {
			t.Fatal(err)
		}
		if got != 24562 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the port of a running host was chosen")
		}
	}
}

// TestForeignDataStopsFounding: a database that no herd made is never shadowed,
// neither by a new herd nor by a member's copy, and nothing is written beside it.
func TestForeignDataStopsFounding(t *testing.T) {
	dir := public(t)
	c := &config.Config{Cluster: "orders", Node: "db1", Listen: "127.0.0.1", Advertise: "127.0.0.1", DataDir: dir, RunDir: filepath.Join(dir, "run"), Roles: []string{string(config.Database), string(config.Store)}}
	old := filepath.Join(dir, "data")
	if err := os.Mkdir(old, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(old, "PG_VERSION"), []byte("15\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, joining := Join(t.Context(), c, config.CurrentAccount(), []string{"127.0.0.1:1"}, "secret", "v")
	for what, err := range map[string]error{"founding": Found(c, config.CurrentAccount()), "joining": joining} {
		var hinted *Hinted
		if !errors.As(err, &hinted) || !strings.Contains(err.Error(), old+" holds a database of PostgreSQL 15") || !strings.Contains(hinted.Hint, "pg_dumpall") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if es, _ := os.ReadDir(dir); len(es) != 1 {
		t.Errorf("%d files in the folder", len(es))
	}
	if err := os.WriteFile(filepath.Join(old, "manada.ignored"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Found(c, config.CurrentAccount()); err != nil {
		t.Errorf("its owner knows of it: %v", err)
	}
}

// TestJudge: PostgreSQL's own word on a file comes with the line of the mistake,
// and a host does not change its name.
func TestJudge(t *testing.T) {
	a := config.CurrentAccount()
	if os.Geteuid() == 0 {
		var err error
		if a, err = config.LookupAccount("postgres"); err != nil {
			t.Fatal(err)
		}
	}
	dir := public(t)
	file := filepath.Join(dir, "manada.yaml")
	text := "cluster: orders\nnode: db1\nlisten: 127.0.0.1\nroles: [database, store]\ndata_dir: " + dir + "/data\n"
	judge := func(more string) string {
		c, err := config.Parse(file, []byte(text+more), nil)
		if err != nil {
			t.Fatal(err)
		}
		err = Judge(t.Context(), c, a)
		var ps config.Problems
		if err != nil && !errors.As(err, &ps) {
			t.Fatal(err)
		}
		return fmt.Sprint(err)
	}
	if got := judge("postgresql:\n  parameters: {work_mem: 16MB}\n  hba: [hostssl all all 10.0.0.0/8 scram-sha-256]\n"); got != "<nil>" {
		t.Errorf("of a right file: %s", got)
	}
	got := judge("postgresql:\n  parameters:\n    shared_bufers: 1GB\n    session_preload_libraries: nosuch\n  hba:\n    - hostssl all all 10.0.0.0/33 scram-sha-256\n")
	for _, want := range []string{
		`postgresql.parameters.shared_bufers: PostgreSQL refuses it: unrecognized configuration parameter "shared_bufers"`,
		`session_preload_libraries: PostgreSQL refuses it: could not access file "nosuch"`,
		`line 1, "hostssl all all 10.0.0.0/33 scram-sha-256": PostgreSQL refuses it: invalid CIDR mask`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in:\n%s", want, got)
		}
	}
	c, err := config.Parse(file, []byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := Found(c, a); err != nil {
		t.Fatal(err)
	}
	text = strings.Replace(text, "db1", "db2", 1)
	if got := judge(""); !strings.Contains(got, file+":2: node: the identity in "+dir+"/data/identity is of host db1") {
		t.Errorf("of another name: %s", got)
	}
}

// TestPortsOfOthersAreFound: before a host starts, and not while it runs.
func TestPortsOfOthersAreFound(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := &config.Config{Listen: "127.0.0.1", DataDir: t.TempDir(), Roles: []string{"store"},
		Ports: config.Ports{StoreCli: l.Addr().(*net.TCPAddr).Port, StorePeer: 1, Peer: 2, HTTP: 3}}
	if err := CheckPorts(c); err == nil || !strings.Contains(err.Error(), "ports.store_client: port "+strconv.Itoa(c.Ports.StoreCli)+" is taken") || strings.Count(err.Error(), "is taken") != 1 {
		t.Errorf("got %v", err)
	}
}

// TestMountPointIsTaken: an empty folder of root's, as a new disk is mounted,
// becomes the account's; one that somebody filled is left alone, and said.
func TestMountPointIsTaken(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root gives folders away")
	}
	a, err := config.LookupAccount("postgres")
	if err != nil {
		t.Fatal(err)
	}
	dir := public(t)
	if err := os.Mkdir(filepath.Join(dir, "lost+found"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(a.CanKeep(dir, true), MakeDir(dir, 0o755, a)); err != nil {
		t.Fatal(err)
	}
	if err := a.CanKeep(dir, false); err != nil {
		t.Errorf("a mount point was not given away: %v", err)
	}
	full := public(t)
	if err := os.WriteFile(filepath.Join(full, "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := MakeDir(full, 0o755, a); err != nil {
		t.Fatal(err)
	}
	if err := a.CanKeep(full, true); err == nil || !strings.Contains(err.Error(), "user postgres cannot write in "+full) {
		t.Errorf("of a folder that root has filled: %v", err)
	}
}
