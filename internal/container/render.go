package container

import (
	"encoding/json"
	"fmt"
	"path/filepath"

	"go.yaml.in/yaml/v3"

	"manada/internal/config"
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

// section is a part of manada.yaml.
type section map[string]any

// Render makes this host's manada.yaml of the environment and the mounted
// files. Lines that are not obeyed are returned, not lost.
func Render(h *Host, p Places) (text []byte, refused []string, err error) {
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
	if h.Proxy.Off {
		doc["proxy"] = section{"split": "off"}
	}
	if h.Has(config.Repository) {
		doc["backup"] = section{"repo_path": p.Repo}
	}
	if refused, err = h.files(p, doc); err != nil {
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
func (h *Host) files(p Places, doc section) (refused []string, err error) {
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
	hba, bad := sift(hba, "postgresql.hba")
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
		lines, bad = sift(lines, "postgresql.parameters")
		note(bad)
		params := map[string]string{}
		for _, l := range lines {
			params[l.Name] = l.Value // the last one counts, as in PostgreSQL
		}
		if len(params) > 0 {
			pg["parameters"] = params
		}
	}
	if len(pg) > 0 {
		doc["postgresql"] = pg
	}
	return refused, nil
}

// yamlText writes a text as a quoted scalar: JSON's strings are YAML's, too.
func yamlText(s string) string {
	b, _ := json.Marshal(s) // a string always can be
	return string(b)
}
