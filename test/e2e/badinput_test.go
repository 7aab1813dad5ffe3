package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"manada/internal/pki"
)

func badInput(t *testing.T) {
	e := shared(t, time.Minute)
	s := e.healthy()
	e.refused(e.bare("statsu"), 2, `unknown command "statsu"`, "manada status")
	e.refused(e.bare("frobnicate"), 2, `unknown command "frobnicate"`)
	e.refused(e.manada("status", "--chek"), 2, "unknown flag: --chek", "--check")
	e.refused(e.manada("status", "-o", "yaml"), 2, `"yaml"`)
	e.refused(e.manada("backup", "--type", "ful"), 2, `"ful"`)
	e.refused(e.manada("up", "extra"), 2, `"extra"`)
	e.refused(e.bare("up", "-c", "x.yaml"), 2, "manada run")
	e.refused(e.manada("run"), 2, "several hosts")
	e.refused(e.bare("status", "--dir", "/nowhere/at/all"), 2, "/nowhere/at/all")
	e.refused(e.bare("status", "-c", "/nowhere.yaml"), 2, "/nowhere.yaml")
	e.refused(e.manada("switchover", "nobody"), 2, "nobody")
	e.refused(e.manada("switchover", "backup"), 2, "backup has no database")
	e.refused(e.manada("switchover", s.Primary), 1, s.Primary+" is already the primary")
	e.refused(e.manada("failover", "nobody"), 2, "nobody")
	e.refused(e.manada("failover"), 1, s.Primary+" is well", "manada switchover", "--force")
	e.refused(e.manada("failover", standby(s)), 1, s.Primary+" is well")
	e.refused(e.manada("failback", "nobody"), 2, "nobody")
	e.refused(e.manada("node", "remove", "slave", "--yes"), 1, "slave")
	e.refused(e.manada("restore"), 2, "--to")
	full := e.ownedFolder(e.Data + "/master")
	if err := os.WriteFile(filepath.Join(full, "precious"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	e.refused(e.manada("restore", "--to", full), 5, full, "not empty")
	e.refused(e.manada("restore", "--to", e.Data+"/master/pgdata"), 5, "data directory of host master")
	e.refused(e.manada("restore", "--to", full+"/new", "--set", "20200101-000000F"), 1, "20200101-000000F")
	t.Run("Config", func(t *testing.T) { badConfig(&env{t, e.Herd, e.ctx}) })
	t.Run("Up", func(t *testing.T) { badUp(&env{t, e.Herd, e.ctx}) })
	if now := e.healthy(); now.Epoch != s.Epoch {
		t.Errorf("wrong commands changed the epoch from %d to %d", s.Epoch, now.Epoch)
	}
}

// badConfig: every section has its typo, told with line and suggestion.
func badConfig(e *env) {
	dir := e.ownedFolder(e.Data + "/master")
	head := "cluster: herd\nnode: a\nroles: [store]\ndata_dir: " + dir + "/data\n"
	for i, x := range []struct {
		text string
		line int
		says []string
	}{
		{"lsten: 127.0.0.1\n", 5, []string{`unknown key, did you mean "listen"?`}},
		{"ports:\n  postgresl: 5432\n", 6, []string{`ports.postgresl`, `did you mean "postgresql"?`}},
		{"timing:\n  suspekt_after: 1s\n", 6, []string{`did you mean "suspect_after"?`}},
		{"timing:\n  beat: fast\n", 6, []string{"timing.beat", "a duration such as"}},
		{"postgresql:\n  bindir: /x\n", 6, []string{`did you mean "bin_dir"?`}},
		{"postgresql:\n  parameters:\n    fsync: off\n", 7, []string{"fsync", "cannot be set here"}},
		{"proxy:\n  max_client: 5\n", 6, []string{`did you mean "max_clients"?`}},
		{"proxy:\n  pool:\n    mode: pooled\n", 7, []string{"proxy.pool.mode", "one of session, transaction, statement, auto"}},
		{"proxy:\n  pool:\n    size: -1\n", 7, []string{"proxy.pool.size", "from 0 to 1000000"}},
		{"proxy:\n  pool:\n    overrides:\n      orders: size=0\n", 8, []string{"proxy.pool.overrides.orders", "want a whole number from 1 to 1000000"}},
		{"backup:\n  retention-full: 5\n", 6, []string{`did you mean "retention_full"?`}},
		{"backup:\n  compress: zip\n", 6, []string{"one of zst, lz4, gz, none"}},
		{"join:\n  adresses: [\"1.2.3.4:7400\"]\n", 6, []string{`did you mean "addresses"?`}},
		{"log:\n  levl: info\n", 6, []string{`did you mean "level"?`}},
		{"durability: quorm\n", 5, []string{"one of quorum, strict, async"}},
		{"ports:\n\tpeer: 1\n", 0, []string{"not valid YAML", "hint: indent with spaces"}},
	} {
		f := filepath.Join(dir, fmt.Sprintf("typo%d.yaml", i))
		if err := os.WriteFile(f, []byte(head+x.text), 0o644); err != nil {
			e.Fatal(err)
		}
		at := f
		if x.line > 0 {
			at = fmt.Sprintf("%s:%d: ", f, x.line)
		}
		for _, args := range [][]string{{"config", "check", "-c", f}, {"run", "-c", f}} {
			r := e.bare(args...)
			if r.code != 2 {
				e.Errorf("%s: exit %d\n%s%s", r.line, r.code, r.out, r.err)
			}
			for _, want := range append(x.says, at) {
				if !strings.Contains(r.err, want) {
					e.Errorf("%s: does not say %q:\n%s", r.line, want, r.err)
				}
			}
		}
	}
}

// badUp: what the machine lacks or the folder holds is said before anything is
// written.
func badUp(e *env) {
	dir := e.ownedFolder(e.Data + "/master")
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		e.Fatal(err)
	}
	e.refused(e.bare("up", "--dir", file), 2, file)
	e.refused(e.bare("up", "--dir", dir), 2, dir, "is not empty", "--dir")
	e.refused(e.bare("up", "--dir", filepath.Join(dir, "new"), "--name", "No Good"), 2, "No Good")
	if _, err := os.Stat(filepath.Join(dir, "new", "master")); err == nil {
		e.Error("a refused up has made a host")
	}
	// No PostgreSQL, in a file and on the machine.
	empty := e.ownedFolder(e.Data + "/master")
	f := filepath.Join(dir, "nobin.yaml")
	text := "cluster: herd\nnode: a\ndata_dir: " + dir + "/data\npostgresql:\n  bin_dir: " + empty + "\n"
	if err := os.WriteFile(f, []byte(text), 0o644); err != nil {
		e.Fatal(err)
	}
	e.refused(e.bare("run", "-c", f), 2, f+":5: postgresql.bin_dir", "there is no program "+empty+"/postgres", "/usr/lib/postgresql/15/bin")
	e.refused(e.bare("config", "check", "-c", f), 2, f+":5: postgresql.bin_dir")
	hide := "mount -t tmpfs none /usr/lib/postgresql && exec " + bin + " up --dir " + filepath.Join(dir, "none")
	if exec.Command("unshare", "-m", "true").Run() == nil {
		e.refused(e.run(exec.CommandContext(e.ctx, "unshare", "-m", "sh", "-c", hide)), 2, "no PostgreSQL found", "apt install postgresql-15")
		if _, err := os.Stat(filepath.Join(dir, "none", "master")); err == nil {
			e.Error("a refused up has made a host")
		}
	} else {
		e.Log("no mount namespaces here: PostgreSQL cannot be hidden from up")
	}
	// A data directory that cannot be used.
	if err := os.Mkdir(filepath.Join(dir, "closed"), 0o500); err != nil {
		e.Fatal(err)
	}
	f = filepath.Join(dir, "closed.yaml")
	for _, data := range []string{filepath.Join(dir, "closed", "data"), file} {
		if data != file && os.Geteuid() == 0 {
			continue // root makes it and gives it away
		}
		if err := os.WriteFile(f, []byte("cluster: herd\nnode: a\nroles: [store]\ndata_dir: "+data+"\n"), 0o644); err != nil {
			e.Fatal(err)
		}
		e.refused(e.bare("run", "-c", f), 2, f+":4: data_dir", filepath.Dir(data))
	}
}

// badHosts: a second supervisor, and hosts that may not join.
func badHosts(t *testing.T) {
	e := shared(t, time.Minute)
	s := e.healthy()
	master := filepath.Join(e.Data, "master", "manada.yaml")
	e.refused(e.bare("run", "-c", master), 1, "another supervisor runs on this data directory", "pid ")
	e.refused(e.bare("join", "127.0.0.1:1", "-c", master), 1, "host master belongs to a herd already")

	dir := e.ownedFolder(e.Data + "/master")
	token := filepath.Join(dir, "token")
	unknown, _ := pki.NewToken(time.Now())
	for name, text := range map[string]string{"wrong": strings.Repeat("w", 43), "other": unknown} {
		if err := os.WriteFile(token, []byte(text+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		f := filepath.Join(dir, name+".yaml")
		addr := fmt.Sprintf("127.0.0.1:%d", e.Port("master", "peer"))
		text := fmt.Sprintf("cluster: herd\nnode: %s\nroles: [proxy]\ndata_dir: %s/%s\njoin:\n  addresses: [%q]\n  token_file: %s\n", name, dir, name, addr, token)
		if err := os.WriteFile(f, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		e.refused(e.bare("join", addr, "-c", f), 1, "token")
		e.refused(e.bare("run", "-c", f), 1, "token")
	}
	if now := e.healthy(); len(now.Nodes) != len(s.Nodes) || now.Epoch != s.Epoch {
		t.Errorf("refused hosts left something behind: %+v", now.Nodes)
	}
}
