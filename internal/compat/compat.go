package compat

import (
	"io"
	"path/filepath"

	"manada/internal/compat/pgbackrest"
	"manada/internal/compat/repmgr"
)

// Main runs a face: args are those behind the program's name, the result is the
// exit code.
type Main func(args []string, in io.Reader, out, err io.Writer) int

// faces by the name under which the program is called.
var faces = map[string]Main{
	"repmgr":     repmgr.Main,
	"pgbackrest": pgbackrest.Main,
}

// Face finds the face for a program's name, argv[0].
func Face(argv0 string) (Main, bool) {
	m, ok := faces[filepath.Base(argv0)]
	return m, ok
}
