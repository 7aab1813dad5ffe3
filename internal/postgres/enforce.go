package postgres

import (
	"context"
	"fmt"
	"strings"

	"manada/internal/cluster"
)

// Enforcement is what Enforce found and did.
type Enforcement struct {
	Reset []string // settings taken back from ALTER SYSTEM (postgresql.auto.conf)
	// Beaten are protected settings that come from where we cannot reset them,
	// as "name (source)": the command line, the environment.
	Beaten []string
	// Loose are ALTER ROLE/DATABASE ... SET synchronous_commit below "on":
	// commits of those are acknowledged without a standby. Reported, not undone.
	Loose []string
	// Named are the databases that bear a name of the proxies' console.
	Named []string
	// FileErrors are lines of the configuration that PostgreSQL refuses.
	FileErrors []string
}

// Enforce reads the settings that the protocol stands on back, with where they
// come from, and takes back what ALTER SYSTEM has changed (finding M12).
func (i *Instance) Enforce(ctx context.Context) (Enforcement, error) {
	var e Enforcement
	res, err := i.query(ctx, `
select f.name, f.setting, f.sourcefile, case when p.pending_restart then null else f.error end
  from pg_file_settings f left join pg_settings p on lower(p.name) = lower(f.name)
  where f.sourcefile like '%/postgresql.auto.conf' or f.error is not null;
select name, source from pg_settings where source in ('environment variable', 'command line') and name <> all ('{config_file,hba_file,ident_file,data_directory}');
select coalesce(r.rolname, 'all roles'), coalesce(d.datname, 'all databases'), c from pg_db_role_setting s
  left join pg_roles r on r.oid = s.setrole left join pg_database d on d.oid = s.setdatabase, unnest(s.setconfig) c
  where c like 'synchronous_commit=%';
select datname from pg_database where datname in ('`+strings.Join(cluster.ConsoleDatabases, "', '")+`') order by 1`)
	if err != nil {
		return e, fmt.Errorf("read settings back: %w", err)
	}
	for _, r := range res[0] {
		name := strings.ToLower(string(r[0]))
		switch {
		case strings.HasSuffix(string(r[2]), "/postgresql.auto.conf") && CheckParams(map[string]string{name: string(r[1])}) != nil:
			if _, err := i.query(ctx, "alter system reset "+name); err != nil {
				return e, fmt.Errorf("take %s back from ALTER SYSTEM: %w", name, err)
			}
			e.Reset = append(e.Reset, name)
		case r[3] != nil:
			e.FileErrors = append(e.FileErrors, name+": "+string(r[3]))
		}
	}
	ours := map[string]bool{}
	for _, s := range unshakeable {
		name, _, _ := strings.Cut(s, "=")
		ours[name] = true
	}
	for _, r := range res[1] {
		if _, protected := Protected[string(r[0])]; protected && !ours[string(r[0])] {
			e.Beaten = append(e.Beaten, fmt.Sprintf("%s (%s)", r[0], r[1]))
		}
	}
	for _, r := range res[2] {
		if v := strings.TrimPrefix(string(r[2]), "synchronous_commit="); v != "on" && v != "remote_apply" {
			e.Loose = append(e.Loose, fmt.Sprintf("%s in %s: %s", r[0], r[1], r[2]))
		}
	}
	for _, r := range res[3] {
		e.Named = append(e.Named, string(r[0]))
	}
	if len(e.Reset) == 0 {
		return e, nil
	}
	i.log.Warn("settings taken back from alter system", "settings", e.Reset)
	return e, i.reloadIfRunning(ctx)
}
