package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"manada/internal/config"
	"manada/internal/postgres"
)

// Places are the folders and files of a container. Those of the original images
// stay where they were.
type Places struct {
	DataDir string // the volume of this host
	RunDir  string
	Secrets string // the volume that all containers share
	Custom  string // postgresql.conf, pg_hba.conf, repmgr.conf
	Stanza  string // pgbackrest.conf
	Scripts string // run in a new database
	Repo    string // of the backups
}

// Standard are the places in the image.
func Standard() Places {
	return Places{
		DataDir: "/bitnami/postgresql", RunDir: "/run/manada", Secrets: "/manada/secrets", Custom: "/custom-configs",
		Stanza: "/etc/pgbackrest/pgbackrest.conf", Scripts: "/docker-entrypoint-initdb.d", Repo: "/var/lib/pgbackrest",
	}
}

// SecretFile is where this host reads the join secret: its own file when one
// was given to it, else the one on the shared volume.
func (p Places) SecretFile(h *Host) string {
	if h.JoinSecret != "" {
		return filepath.Join(p.DataDir, "join.secret")
	}
	return filepath.Join(p.Secrets, "join")
}

// Key is a key of manada.yaml with its value, a list with commas.
type Key struct{ Name, Value string }

// Translators read the configuration files of the programs that Manada stands
// in for, with warnings for what is not obeyed. They are handed in: package
// compat has them, and it stands above the command line, which stands above this
// package.
type Translators struct {
	Repmgr, PgBackRest func(name string, r io.Reader) (keys []Key, warnings []string, err error)
}

// section is a part of manada.yaml.
type section map[string]any

// Render makes this host's manada.yaml of the environment and the mounted
// files. Lines that are not obeyed are returned, not lost.
func Render(h *Host, p Places, t Translators) (text []byte, refused []string, err error) {
	doc := section{
		"cluster": h.Cluster, "node": h.Node, "roles": h.Roles, "user": "postgres",
		"data_dir": p.DataDir, "run_dir": p.RunDir, "listen": "0.0.0.0", "advertise": h.Advertise,
	}
	switch {
	case h.Has(config.Database):
		doc["ports"] = section{"postgresql": h.Port}
	case h.Has(config.ProxyRole):
		doc["ports"] = section{"sql": h.Port}
	}
	if len(h.Partners) > 0 {
		doc["join"] = section{"addresses": h.Partners, "secret_file": p.SecretFile(h)}
	}
	if h.Has(config.ProxyRole) && !h.Proxy.Off { // as the image that this one takes the place of
		doc["proxy"] = section{"split": "on"}
	}
	if h.Has(config.Repository) {
		doc["backup"] = section{"repo_path": p.Repo}
	}
	if refused, err = h.files(p, t, doc); err != nil {
		return nil, nil, err
	}
	body, err := yaml.Marshal(doc)
	if err != nil {
		return nil, nil, fmt.Errorf("render the configuration: %w", err)
	}
	head := "# Made at each start of the container of its environment and the mounted files;\n# changes here are lost. See docs/containers.md.\n"
	return append([]byte(head), body...), refused, nil
}

// files adds what the mounted files say.
func (h *Host) files(p Places, t Translators, doc section) (refused []string, err error) {
	note := func(rs []Refusal) {
		for _, r := range rs {
			refused = append(refused, r.String())
		}
	}
	hba, err := ReadHBA(filepath.Join(p.Custom, "pg_hba.conf"))
	if err != nil {
		return nil, err
	}
	pg := section{}
	hba, bad := h.sift(hba, "postgresql.hba")
	if h.Has(config.Database) {
		var worse []Refusal
		if hba, worse, err = wellFormedRules(hba); err != nil {
			return nil, err
		}
		bad = append(bad, worse...)
	}
	for _, r := range bad {
		if slices.Contains(strings.Fields(r.Value), "reject") {
			return nil, fmt.Errorf("%s; without a rule that rejects others would be let in, so nothing is started", r)
		}
	}
	note(bad)
	if len(hba) > 0 {
		var rules []string
		for _, l := range hba {
			rules = append(rules, l.Value)
		}
		pg["hba"] = rules
	}
	if h.Has(config.Database) {
		lines, bad, err := ReadPostgresqlConf(filepath.Join(p.Custom, "postgresql.conf"))
		if err != nil {
			return nil, err
		}
		note(bad)
		lines, bad = h.sift(lines, "postgresql.parameters")
		note(bad)
		params, bad, err := wellFormed(lines)
		if err != nil {
			return nil, err
		}
		note(bad)
		if len(params) > 0 {
			pg["parameters"] = params
		}
	}
	if len(pg) > 0 {
		doc["postgresql"] = pg
	}
	if h.HasAgent() {
		more, err := h.pgbackrest(t, p.Stanza, doc)
		if err != nil {
			return nil, err
		}
		refused = append(refused, more...)
	}
	if h.Has(config.Database) {
		more, err := h.repmgr(t, filepath.Join(p.Custom, "repmgr.conf"), doc)
		if err != nil {
			return nil, err
		}
		refused = append(refused, more...)
	}
	return refused, nil
}

// wellFormed leaves out what PostgreSQL would refuse to start with: a slip in a
// file must not take the node down at its next restart. The last line of a name
// counts, as in PostgreSQL.
func wellFormed(lines []Line) (params map[string]string, refused []Refusal, err error) {
	params = map[string]string{}
	for _, l := range lines {
		params[l.Name] = l.Value
	}
	j, err := ask(params, nil)
	if err != nil {
		return nil, nil, err
	}
	for _, l := range lines {
		if why, ok := j.Settings[l.Name]; ok {
			delete(params, l.Name)
			refused = append(refused, Refusal{l, why})
		}
	}
	return params, refused, nil
}

// wellFormedRules is wellFormed for the lines of a pg_hba.conf.
func wellFormedRules(lines []Line) (good []Line, refused []Refusal, err error) {
	var rules []string
	for _, l := range lines {
		rules = append(rules, l.Value)
	}
	j, err := ask(nil, rules)
	if err != nil {
		return nil, nil, err
	}
	for n, l := range lines {
		if why, ok := j.Rules[n]; ok {
			refused = append(refused, Refusal{l, why})
		} else {
			good = append(good, l)
		}
	}
	return good, refused, nil
}

// ask lets PostgreSQL judge.
func ask(params map[string]string, rules []string) (postgres.Judgement, error) {
	if len(params)+len(rules) == 0 {
		return postgres.Judgement{}, nil
	}
	a := config.CurrentAccount()
	if a.UID == 0 {
		var err error
		if a, err = config.LookupAccount("postgres"); err != nil {
			return postgres.Judgement{}, err
		}
	}
	return postgres.Judge(context.Background(), config.FindPostgreSQL(config.PostgreSQLRoots...), a.UID, a.GID, params, rules) // detached: programs that print and end
}

// pgbackrest adds what a pgbackrest.conf says. What changes what a backup is and
// cannot be obeyed, as encryption, is an error: no backup is the better answer.
func (h *Host) pgbackrest(t Translators, file string, doc section) (refused []string, err error) {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read pgbackrest.conf: %w", err)
	}
	defer f.Close()
	keys, refused, err := t.PgBackRest(filepath.Base(file), f)
	if err != nil {
		return nil, err
	}
	for _, k := range keys {
		if k.Name == "backup.repo_path" && !h.Has(config.Repository) {
			continue
		}
		if why := doc.set(k.Name, k.Value); why != "" {
			refused = append(refused, fmt.Sprintf("%s: %s=%s is not obeyed: %s", filepath.Base(file), k.Name, k.Value, why))
		}
	}
	return refused, nil
}

// repmgr adds what a repmgr.conf says. A mistake in it is named, and what stands
// before it holds: a host that does not start would be the worse answer.
func (h *Host) repmgr(t Translators, file string, doc section) (refused []string, err error) {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read repmgr.conf: %w", err)
	}
	defer f.Close()
	keys, warnings, err := t.Repmgr(filepath.Base(file), f)
	if err != nil {
		warnings = append(warnings, err.Error()+"; what follows in the file is not obeyed")
	}
	for _, k := range keys {
		switch {
		case k.Name == "node" && k.Value != h.Node:
			warnings = append(warnings, fmt.Sprintf("%s: node_name=%s is not obeyed: $REPMGR_NODE_NAME says %s", filepath.Base(file), k.Value, h.Node))
		case k.Name == "node":
		default:
			if why := doc.set(k.Name, k.Value); why != "" {
				warnings = append(warnings, fmt.Sprintf("%s: %s=%s is not obeyed: %s", filepath.Base(file), k.Name, k.Value, why))
			}
		}
	}
	return warnings, nil
}

// set puts a value under the path of its key, "timing.beat", if the
// configuration takes it; why says why not.
func (s section) set(path, value string) (why string) {
	if why := judgeKey(path, value); why != "" {
		return why
	}
	list := slices.Contains(lists, path)
	for {
		head, rest, nested := strings.Cut(path, ".")
		if !nested {
			s[path] = value
			if list {
				s[path] = strings.Split(value, ",")
			}
			return ""
		}
		sub, ok := s[head].(section)
		if !ok {
			sub = section{}
			s[head] = sub
		}
		s, path = sub, rest
	}
}

// lists are the keys that the translators of the original files give with commas.
var lists = []string{"events.only"}

// judgeKey holds one key against the rules of the configuration file, as its
// variable would be.
func judgeKey(path, value string) (why string) {
	c, err := config.Parse("x", []byte("cluster: x\nnode: x\n"), []string{config.EnvName(path) + "=" + value})
	if len(c.Warnings) > 0 {
		return c.Warnings[0].What
	}
	problems, ok := err.(config.Problems)
	if !ok || len(problems) == 0 {
		return ""
	}
	p := problems[0]
	if p.Want != "" {
		return p.What + " (expected " + p.Want + ")"
	}
	return p.What
}

// yamlText writes a text as a quoted scalar: JSON's strings are YAML's, too.
func yamlText(s string) string {
	b, _ := json.Marshal(s) // a string always can be
	return string(b)
}
