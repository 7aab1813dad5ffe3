package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func load(t *testing.T, dir, text string) *Config {
	t.Helper()
	c, err := Parse(filepath.Join(dir, FileName), []byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// public is a folder that any user can enter.
func public(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "mc")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestCheckMachine(t *testing.T) {
	dir := public(t)
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	user := CurrentAccount().Name
	base := minimal + "user: " + user + "\nroles: [store]\ndata_dir: d\n"
	for _, tt := range []struct{ name, yaml, want string }{
		{"good", base, ""},
		{"data dir is a file", minimal + "user: " + user + "\nroles: [store]\ndata_dir: file\n", "data_dir: " + dir + "/file is a file, not a folder"},
		{"no postgresql", base + "postgresql: {bin_dir: nowhere}\nlocation: x", ""}, // not a database host
		{"foreign address", base + "listen: 192.0.2.77", "no interface of this host has the address 192.0.2.77"},
		{"no token", base + "join:\n  addresses: ['h:7400']\n  token_file: nowhere", "join.token_file: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := load(t, dir, tt.yaml).Check()
			if tt.want == "" && err != nil {
				t.Fatal(err)
			}
			if tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

func TestCheckFindsNoPostgreSQL(t *testing.T) {
	dir := public(t)
	user := CurrentAccount().Name
	c := load(t, dir, minimal+"user: "+user+"\ndata_dir: d\npostgresql: {bin_dir: nowhere}\n")
	if err := c.Check(); err == nil || !strings.Contains(err.Error(), "there is no program "+dir+"/nowhere/postgres") {
		t.Errorf("got %v", err)
	}
	c.PostgreSQL.BinDir = FindPostgreSQL(dir)
	if err := c.Check(); err == nil || !strings.Contains(err.Error(), "no PostgreSQL found") || !strings.Contains(err.Error(), "apt install postgresql-15") {
		t.Errorf("got %v", err)
	}
}

func TestFindPostgreSQLPrefers15(t *testing.T) {
	root := t.TempDir()
	for _, v := range []string{"13", "15", "17"} {
		d := filepath.Join(root, v, "bin")
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(d, "postgres"), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if got := FindPostgreSQL(root); got != filepath.Join(root, "15", "bin") {
		t.Error(got)
	}
	os.RemoveAll(filepath.Join(root, "15"))
	if got := FindPostgreSQL(root); got != filepath.Join(root, "17", "bin") {
		t.Error(got)
	}
}

func TestAccountReaches(t *testing.T) {
	dir := public(t)
	shut := filepath.Join(dir, "shut")
	if err := os.MkdirAll(filepath.Join(shut, "in"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(shut, 0o700); err != nil {
		t.Fatal(err)
	}
	stranger := Account{Name: "nobody", UID: 65534, GID: 65534}
	if b := stranger.Reaches(filepath.Join(shut, "in", "x")); b != shut {
		t.Errorf("blocked at %q, want %q", b, shut)
	}
	if b := stranger.Reaches(filepath.Join(dir, "x")); b != "" {
		t.Errorf("blocked at %q", b)
	}
	if err := stranger.CanKeep(filepath.Join(dir, "x"), false); err == nil {
		t.Error("a stranger may write in a folder of ours")
	}
}

func TestFindOrder(t *testing.T) {
	root := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		f := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(f), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(f, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return f
	}
	env := ""
	w := Where{Root: root, Getenv: func(string) string { return env }}
	if _, err := Find(w); !errors.Is(err, ErrNoHerd) {
		t.Fatalf("nothing there: %v", err)
	}
	write("etc/manada/manada.yaml", minimal)
	expect := func(how, file string) {
		t.Helper()
		p, err := Find(w)
		if err != nil || p.How != how || p.Files[0] != file {
			t.Errorf("got %+v, %v; want %s by %s", p, err, file, how)
		}
	}
	expect(SystemFile, filepath.Join(root, SystemFile))
	// The data of ./herd stands elsewhere; its pointer says where.
	data := filepath.Join(root, "elsewhere")
	write("herd/herd.json", `{"schema":1,"cluster":"h","data":"`+data+`","hosts":["master","slave"]}`)
	if _, err := Find(w); err == nil || !strings.Contains(err.Error(), "half made") {
		t.Errorf("half-made herd: %v", err)
	}
	slave := write("elsewhere/slave/manada.yaml", minimal)
	expect("./herd", slave)
	env = write("env/manada.yaml", minimal)
	expect("$MANADA_CONFIG", env)
	env = filepath.Join(root, "env")
	expect("$MANADA_CONFIG", filepath.Join(root, "env", FileName))
	w.Dir = filepath.Join(root, "herd")
	expect("--dir", slave)
	w.File = filepath.Join(root, SystemFile)
	expect("-c", w.File)
	w.File = filepath.Join(root, "absent.yaml")
	if _, err := Find(w); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that was named must exist: %v", err)
	}
}
