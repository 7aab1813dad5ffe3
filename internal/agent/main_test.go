package agent

import (
	"os"
	"testing"

	"manada/internal/postgres/pgtest"
)

// An instance of PostgreSQL refuses to be root's, also one that is never started.
func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }
