package backup

import (
	"fmt"
	"os"
	"path/filepath"
)

const pgbackrest = "/usr/bin/pgbackrest"

// judge is the C pgbackrest working on the bench's repository.
type judge struct {
	*bench
	conf string
}

func (b *bench) judge(c *pgCluster, extra string) *judge {
	b.t.Helper()
	if _, err := os.Stat(pgbackrest); err != nil {
		b.t.Skip("pgbackrest is not installed")
	}
	j := &judge{bench: b, conf: filepath.Join(b.dir, filepath.Base(c.data)+".conf")}
	text := fmt.Sprintf("[global]\nrepo1-path=%s\nlog-path=%s\nlock-path=%s\nspool-path=%s\nlog-level-console=warn\nlog-level-file=off\nstart-fast=y\n%s\n[%s]\npg1-path=%s\npg1-socket-path=%s\npg1-user=postgres\n",
		b.store.Root(), filepath.Join(b.dir, "log"), filepath.Join(b.dir, "lock"), filepath.Join(b.dir, "spool"), extra, b.stanza, c.data, c.sock)
	if err := os.WriteFile(j.conf, []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
	return j
}

func (j *judge) do(args ...string) string {
	j.t.Helper()
	return j.run(pgbackrest, append([]string{"--config=" + j.conf, "--stanza=" + j.stanza}, args...)...)
}

func (j *judge) archiveCommand() string {
	return fmt.Sprintf("%s --config=%s --stanza=%s archive-push %%p", pgbackrest, j.conf, j.stanza)
}
