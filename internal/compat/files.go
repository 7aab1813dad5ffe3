package compat

import (
	"io"

	"manada/internal/compat/pgbackrest"
	"manada/internal/compat/repmgr"
	"manada/internal/container"
)

// Files read the configuration files of repmgr and pgBackRest, for a container
// into which they are mounted.
func Files() container.Translators {
	return container.Translators{Repmgr: repmgrConf, PgBackRest: pgbackrestConf}
}

func repmgrConf(name string, r io.Reader) (keys []container.Key, warnings []string, err error) {
	s, warnings, err := repmgr.Translate(name, r)
	for _, k := range s.Keys() {
		keys = append(keys, container.Key(k))
	}
	return keys, warnings, err
}

func pgbackrestConf(name string, r io.Reader) (keys []container.Key, warnings []string, err error) {
	s, problems, err := pgbackrest.Translate(r, name)
	for _, p := range problems {
		warnings = append(warnings, p.String())
	}
	for _, k := range s.Keys() {
		keys = append(keys, container.Key(k))
	}
	return keys, warnings, err
}
