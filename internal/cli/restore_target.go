package cli

import (
	"errors"
	"strconv"

	"github.com/spf13/pflag"

	"manada/internal/backup"
	"manada/internal/cluster"
)

// targetFlags say where recovery ends, in Manada's words or in pgBackRest's.
type targetFlags struct {
	kind, target         string // --type, --target
	time, lsn, xid, name string
	exclusive            bool
}

func (t *targetFlags) add(fl *pflag.FlagSet) {
	fl.StringVar(&t.time, "target-time", "", "recover to the `TIME`, such as '2026-11-22 14:30:00+01' or '2026-11-22 14:30 Europe/Madrid'; without a zone it is this terminal's")
	fl.StringVar(&t.lsn, "target-lsn", "", "recover to the WAL position `LSN`")
	fl.StringVar(&t.xid, "target-xid", "", "recover to the transaction `XID`")
	fl.StringVar(&t.name, "target-name", "", "recover to the restore point `NAME` (pg_create_restore_point)")
	fl.BoolVar(&t.exclusive, "target-exclusive", false, "end just before the target")
	fl.StringVar(&t.kind, "type", "", "`TYPE` as pgBackRest says it: default, immediate, time, lsn, xid or name")
	fl.StringVar(&t.target, "target", "", "the target of --type, as pgBackRest says it")
}

// resolve makes one type and target of what was given. A time becomes one with
// a zone: what it means must not hang on where it is read.
func (t *targetFlags) resolve() (kind, target string, err error) {
	kind, target = t.kind, t.target
	for _, x := range []struct{ kind, value string }{{"time", t.time}, {"lsn", t.lsn}, {"xid", t.xid}, {"name", t.name}} {
		switch {
		case x.value == "":
		case kind != "" || target != "":
			return "", "", usage("give one target only", "--target-%s beside --type %s --target %q", x.kind, kind, target)
		default:
			kind, target = x.kind, x.value
		}
	}
	if kind == "" {
		kind = string(backup.RestoreDefault)
	}
	targeted := kind == "time" || kind == "lsn" || kind == "xid" || kind == "name"
	switch {
	case !targeted && kind != "default" && kind != "immediate":
		return "", "", usage("default, immediate, time, lsn, xid or name", "unknown type of restore %q", kind)
	case targeted && target == "":
		return "", "", usage("--target-"+kind+" VALUE", "the target is missing: to which %s?", kind)
	case !targeted && target != "":
		return "", "", usage("--target-time, --target-lsn, --target-xid or --target-name", "--target %q without a type of target", target)
	case !targeted && t.exclusive:
		return "", "", usage("add a target", "--target-exclusive without a target")
	case kind == "xid":
		if _, err := strconv.ParseUint(target, 10, 64); err != nil {
			return "", "", usage("a number, as txid_current() shows it", "%q is no transaction id", target)
		}
	case kind == "lsn":
		if _, err := cluster.ParseLSN(target); err != nil {
			return "", "", usage("write it as 0/16B3740", "%q is no WAL position", target)
		}
	case kind == "name" && len(target) >= 64:
		return "", "", usage("shorter than 64", "the name of a restore point has %d characters", len(target))
	case kind == "time":
		at, err := backup.ParseTarget(target, backup.LocalZone())
		var e *backup.Error
		if errors.As(err, &e) {
			return "", "", usage(e.Hint, "%s", e.Text)
		}
		target = backup.FormatTarget(at)
	}
	return kind, target, nil
}
