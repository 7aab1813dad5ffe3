package herd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"manada/internal/config"
	"manada/internal/postgres"
	"manada/internal/supervisor"
)

// Judge looks at what only others can tell of a host's configuration: whether
// PostgreSQL takes its settings, libraries and lines of pg_hba.conf, and whether
// the host is still the one that it was when it founded or joined. The error is
// of type config.Problems when the configuration is at fault.
func Judge(ctx context.Context, c *config.Config, a config.Account) error {
	var all config.Problems
	if c.HasIdentity() {
		if _, err := CheckIdentity(c); err != nil {
			all = append(all, c.Problem("node", err.Error(), "the host that the identity is of",
				"cluster, node and roles of a host stay; a host under another name joins anew with another data_dir"))
		}
	}
	if !c.Has(config.Database) || c.PostgreSQL.BinDir == "" {
		return all.OrNil()
	}
	j, err := postgres.Judge(ctx, c.PostgreSQL.BinDir, a.UID, a.GID, c.PostgreSQL.Parameters, c.PostgreSQL.HBA)
	if err != nil {
		return errors.Join(all.OrNil(), fmt.Errorf("ask PostgreSQL what it thinks of %s: %w", c.File, err))
	}
	for _, name := range slices.Sorted(maps.Keys(j.Settings)) {
		all = append(all, c.Problem("postgresql.parameters."+name, "PostgreSQL refuses it: "+j.Settings[name], "",
			"names and values:  "+filepath.Join(c.PostgreSQL.BinDir, "postgres")+" --describe-config"))
	}
	for _, n := range slices.Sorted(maps.Keys(j.Rules)) {
		all = append(all, c.Problem("postgresql.hba", fmt.Sprintf("line %d, %q: PostgreSQL refuses it: %s", n+1, c.PostgreSQL.HBA[n], j.Rules[n]), "",
			"the form is  TYPE DATABASE USER ADDRESS METHOD [OPTIONS], as in PostgreSQL's documentation of pg_hba.conf"))
	}
	return all.OrNil()
}

// CheckPorts finds ports of a host that is not running which somebody else has.
// The error is of type config.Problems.
func CheckPorts(c *config.Config) error {
	if _, held, _ := supervisor.LockedBy(c.LockFile()); held {
		return nil // it is the host itself that listens
	}
	var all config.Problems
	for _, u := range c.UsedPorts() {
		if u.Key == "ports.postgresql" {
			if _, err := os.Stat(filepath.Join(c.PGData(), "postmaster.pid")); err == nil {
				continue // its own PostgreSQL goes on under the guardian
			}
		}
		l, err := net.Listen("tcp", c.ListenOn(u.Port))
		if errors.Is(err, syscall.EADDRINUSE) {
			all = append(all, c.Problem(u.Key, fmt.Sprintf("port %d is taken", u.Port), "a free port", "who has it:  ss -ltnp 'sport = :"+strconv.Itoa(u.Port)+"'"))
		}
		if err == nil {
			l.Close()
		}
	}
	return all.OrNil()
}
