package pgbackrest

import (
	"context"
	"fmt"

	"manada/internal/backup"
)

// codeRuntime is what pgBackRest's verify ends with when it has found something.
const codeRuntime = 122

// verify reads everything that a restore would, and tells of what is not as it
// was written.
func (f *face) verify(ctx context.Context) error {
	if kind := f.text("output"); kind == "json" {
		return fail(codeOptionValue, "allowed: text; manada verify -o json", "'%s' is not allowed for 'output' option", kind)
	}
	r, err := f.herd.Repository()
	if err != nil {
		return err
	}
	workers := f.num("process-max")
	if workers == 0 {
		workers = r.Host.Backup.Processes
	}
	res, err := backup.Verify(ctx, backup.VerifyOptions{Storage: r.Storage, Stanza: f.text("stanza"), Set: f.text("set"), Workers: workers})
	if err != nil {
		if ctx.Err() != nil {
			return exitCode(codeTerm)
		}
		return err
	}
	status := "ok"
	if len(res.Problems) > 0 {
		status = "error"
	}
	fmt.Fprintf(f.out, "stanza: %s\nstatus: %s\n", f.text("stanza"), status)
	for _, p := range res.Problems {
		fmt.Fprintf(f.out, "  %s\n", p)
	}
	f.log.info("total backups checked: %d, total files checked: %d, total WAL checked: %d", res.Backups, res.Files, res.WAL)
	if n := len(res.Problems); n > 0 {
		return fail(codeRuntime, "restore another backup set, and make a new full backup.", "%d problems found", n)
	}
	return nil
}
