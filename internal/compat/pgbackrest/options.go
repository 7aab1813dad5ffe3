package pgbackrest

import (
	"regexp"
	"strconv"
	"strings"
)

type kind int

const (
	text kind = iota
	boolean
	number
	many // may be given more than once
)

// standing is what becomes of an option.
type standing int

const (
	honoured standing = iota
	idle              // accepted without effect: nothing that anybody asked for changes
	refused           // unless it has the value that says what Manada does anyway
)

// Option is an option of pgBackRest 2.45.
type Option struct {
	Name     string // of an option of a group without its number: repo-path
	kind     kind
	standing standing
	why      string // of an idle or refused one
	harmless string // the value with which a refused one is none
	in       string // the commands that know it; "" means all
	told     bool   // of an idle one: something was expected of it, unless it has the harmless value
	secret   bool   // never on a command line
	cliOnly  bool   // never in a file
}

const (
	agentsTalk = "not needed: the hosts of the herd reach each other by themselves"
	byManada   = "no effect: Manada decides that itself"
	noRemote   = "the repository is a folder of the repository host"
)

// Options are the options that pgBackRest 2.45 has and its users write, with what
// Manada makes of them.
var Options = []Option{
	{Name: "stanza", in: "archive-get archive-push backup check expire info restore stanza-create verify", cliOnly: true},
	{Name: "config", cliOnly: true},
	{Name: "set", in: "info restore expire verify", cliOnly: true},
	{Name: "output", in: "info verify", cliOnly: true},
	{Name: "type", in: "backup info restore", cliOnly: true},
	{Name: "target", in: "restore", cliOnly: true},
	{Name: "target-action", in: "restore", cliOnly: true},
	{Name: "target-exclusive", kind: boolean, in: "restore", cliOnly: true},
	{Name: "target-timeline", in: "restore", cliOnly: true},
	{Name: "force", kind: boolean, in: "backup restore stanza-create", cliOnly: true},
	{Name: "repo", kind: number, cliOnly: true, standing: refused, why: "the herd has one repository", harmless: "1"},
	{Name: "online", kind: boolean, in: "backup stanza-create", cliOnly: true, standing: refused, why: "backups are made of a running primary", harmless: "y"},
	{Name: "dry-run", kind: boolean, in: "expire", cliOnly: true, standing: refused, why: "expire cannot try yet", harmless: "n"},
	{Name: "config-path", cliOnly: true, standing: refused, why: "name the file with --config"},
	{Name: "config-include-path", cliOnly: true, standing: refused, why: "name one file with --config"},

	{Name: "repo-path"},
	{Name: "repo-retention-full", kind: number, in: "backup expire"},
	{Name: "repo-retention-diff", kind: number, in: "backup expire"},
	{Name: "repo-retention-archive", kind: number, in: "backup expire"},
	{Name: "repo-retention-full-type", standing: refused, why: "full backups are counted", harmless: "count", in: "backup expire"},
	{Name: "repo-retention-archive-type", standing: refused, why: "WAL is kept by full backups", harmless: "full", in: "backup expire"},
	{Name: "repo-retention-history", standing: idle, told: true, why: "the history of manifests is kept", in: "backup expire"},
	{Name: "repo-type", standing: refused, why: noRemote, harmless: "posix"},
	{Name: "repo-cipher-type", standing: refused, why: "the repository is not encrypted", harmless: "none"},
	{Name: "repo-cipher-pass", standing: refused, why: "the repository is not encrypted", secret: true},
	{Name: "repo-hardlink", kind: boolean, standing: refused, why: "backups are bundled", harmless: "n", in: "backup"},
	{Name: "repo-block", kind: boolean, standing: refused, why: "block incremental backups are not written", harmless: "n", in: "backup"},
	{Name: "repo-bundle", kind: boolean, standing: idle, told: true, harmless: "y", why: "small files are always bundled", in: "backup"},
	{Name: "repo-bundle-size", standing: idle, why: byManada, in: "backup"},
	{Name: "repo-bundle-limit", standing: idle, why: byManada, in: "backup"},

	{Name: "repo-host", standing: idle, told: true, why: "the repository is on the herd's own host with that role"},

	{Name: "pg-path", in: "archive-get archive-push backup check restore stanza-create"},
	{Name: "pg-version-force", standing: refused, why: "the version is read from the data directory"},

	{Name: "compress", kind: boolean, in: "archive-push backup"},
	{Name: "compress-type", in: "archive-push backup"},
	{Name: "compress-level", kind: number, in: "archive-push backup"},
	{Name: "process-max", kind: number, in: "archive-get archive-push backup restore verify"},
	{Name: "start-fast", kind: boolean, in: "backup"},
	{Name: "delta", kind: boolean, in: "backup restore"},
	{Name: "annotation", kind: many, in: "backup", cliOnly: true},
	{Name: "checksum-page-error", kind: boolean, in: "backup restore"},
	{Name: "expire-auto", kind: boolean, in: "backup", standing: refused, why: "every backup applies the retention", harmless: "y"},
	{Name: "archive-check", kind: boolean, standing: refused, why: "a backup without its WAL cannot be restored", harmless: "y"},
	{Name: "archive-copy", kind: boolean, standing: refused, why: "the WAL stays in the archive; manada backups export takes it along", harmless: "n"},
	{Name: "backup-standby", kind: boolean, standing: refused, why: "backups are made on the primary", harmless: "n"},
	{Name: "exclude", kind: many, standing: refused, why: "a backup has all of the data directory", in: "backup"},
	{Name: "archive-timeout", in: "archive-get archive-push backup check"},

	{Name: "archive-mode", in: "restore"},
	{Name: "link-all", kind: boolean, in: "restore"},
	{Name: "link-map", kind: many, standing: refused, why: "links are restored with --link-all or not at all", in: "restore"},
	{Name: "db-include", kind: many, standing: refused, why: "all databases are restored", in: "restore"},
	{Name: "db-exclude", kind: many, standing: refused, why: "all databases are restored", in: "restore"},
	{Name: "tablespace-map", kind: many, in: "restore"},
	{Name: "tablespace-map-all", in: "restore"},
	{Name: "recovery-option", kind: many, in: "restore"},

	{Name: "log-level-console"},
	{Name: "log-level-stderr"},
	{Name: "log-timestamp", kind: boolean},
	{Name: "log-level-file", standing: idle, told: true, harmless: "off", why: "there is no log file: the agents write the herd's logs"},
	{Name: "log-path", standing: idle, told: true, why: "there is no log file: the agents write the herd's logs"},
	{Name: "log-subprocess", kind: boolean, standing: idle, why: byManada},

	{Name: "archive-async", kind: boolean, standing: idle, why: "the agent archives each segment as it is done"},
	{Name: "archive-push-queue-max", standing: idle, told: true, why: "no WAL is ever dropped"},
	{Name: "archive-get-queue-max", standing: idle, why: byManada},
	{Name: "archive-header-check", kind: boolean, standing: idle, why: "segments are always checked"},
	{Name: "archive-mode-check", kind: boolean, standing: idle, why: "Manada sets archive_mode"},
	{Name: "archive-missing-retry", kind: boolean, standing: idle, why: byManada},
	{Name: "checksum-page", kind: boolean, standing: idle, told: true, harmless: "y", in: "backup", why: "page checksums are checked where the cluster has them"},
	{Name: "lock-path", standing: idle, told: true, why: "the lock is the repository's own"},
	{Name: "spool-path", standing: idle, why: "there is no spool"},
	{Name: "beta", kind: boolean, standing: idle, why: byManada},
	{Name: "buffer-size", standing: idle, why: byManada},
	{Name: "cmd", standing: idle, why: byManada},
	{Name: "cmd-ssh", standing: idle, why: agentsTalk},
	{Name: "compress-level-network", kind: number, standing: idle, why: "files are compressed before they travel"},
	{Name: "db-timeout", standing: idle, why: byManada},
	{Name: "io-timeout", standing: idle, why: byManada},
	{Name: "protocol-timeout", standing: idle, why: byManada},
	{Name: "job-retry", kind: number, standing: idle, why: byManada},
	{Name: "job-retry-interval", standing: idle, why: byManada},
	{Name: "manifest-save-threshold", standing: idle, why: "an interrupted backup is not resumed"},
	{Name: "resume", kind: boolean, standing: idle, told: true, harmless: "n", in: "backup", why: "an interrupted backup is not resumed"},
	{Name: "neutral-umask", kind: boolean, standing: idle, why: byManada},
	{Name: "sck-block", kind: boolean, standing: idle, why: byManada},
	{Name: "sck-keep-alive", kind: boolean, standing: idle, why: byManada},
	{Name: "stop-auto", kind: boolean, standing: idle, why: "a backup of a dead process ends by itself"},
	{Name: "tcp-keep-alive-count", kind: number, standing: idle, why: byManada},
	{Name: "tcp-keep-alive-idle", kind: number, standing: idle, why: byManada},
	{Name: "tcp-keep-alive-interval", kind: number, standing: idle, why: byManada},
}

// families are groups of options that share their fate.
var families = []struct {
	prefix   string
	standing standing
	why      string
}{
	{"repo-azure-", refused, noRemote},
	{"repo-gcs-", refused, noRemote},
	{"repo-s3-", refused, noRemote},
	{"repo-sftp-", refused, noRemote},
	{"repo-storage-", refused, noRemote},
	{"repo-block-", refused, "block incremental backups are not written"},
	{"repo-host-", idle, agentsTalk},
	{"pg-host", idle, agentsTalk},
	{"pg-user", idle, agentsTalk},
	{"pg-port", idle, agentsTalk},
	{"pg-database", idle, agentsTalk},
	{"pg-socket-path", idle, agentsTalk},
	{"tls-server-", idle, agentsTalk},
}

var byName = func() map[string]Option {
	m := map[string]Option{}
	for _, o := range Options {
		m[o.Name] = o
	}
	return m
}()

var grouped = regexp.MustCompile(`^(repo|pg)([0-9]+)-(.+)$`)

// find looks an option up by the name under which it is written: repo1-path. The
// number is 0 for an option without one.
func find(written string) (o Option, index int, ok bool) {
	name := written
	if m := grouped.FindStringSubmatch(written); m != nil {
		index, _ = strconv.Atoi(m[2])
		name = m[1] + "-" + m[3]
		if index == 0 {
			return o, 0, false
		}
	} else if strings.HasPrefix(written, "repo-") || strings.HasPrefix(written, "pg-") {
		index = 1 // an old spelling, which pgBackRest takes too
	}
	if o, ok = byName[name]; ok {
		return o, index, true
	}
	for _, f := range families {
		if strings.HasPrefix(name, f.prefix) {
			return Option{Name: name, standing: f.standing, why: f.why}, index, true
		}
	}
	return o, 0, false
}

// written is the name under which an option is written.
func (o Option) written() string {
	for _, g := range []string{"repo-", "pg-"} {
		if rest, ok := strings.CutPrefix(o.Name, g); ok {
			return strings.TrimSuffix(g, "-") + "1-" + rest
		}
	}
	return o.Name
}

// objection says why a value is refused; "" when it is not.
func (o Option) objection(index int, value string) string {
	switch {
	case index > 1 && strings.HasPrefix(o.Name, "repo"):
		return "the herd has one repository"
	case o.standing == refused && (o.harmless == "" || value != o.harmless):
		return o.why
	}
	return ""
}

// takes says whether a command knows the option.
func (o Option) takes(command string) bool {
	return o.in == "" || contains(strings.Fields(o.in), command)
}

func optionNames() []string {
	var names []string
	for _, o := range Options {
		names = append(names, o.written())
	}
	return names
}
