package repmgr

import (
	"fmt"
	"strings"
)

// line is a command line, taken apart.
type line struct {
	options
	words                        []string // command, action and what is too much
	file                         string
	help, version, versionNumber bool
}

func (l line) command() string { return strings.Join(l.words, " ") }

// known are repmgr's commands with their actions, and what to do in Manada
// instead; "" is answered.
var known = map[string]map[string]string{
	"primary": {"register": noRegister, "unregister": noUnregister},
	"master":  {"register": noRegister, "unregister": noUnregister},
	"standby": {
		"register": noRegister, "unregister": noUnregister,
		"clone":      "a standby is cloned by itself when its host has joined: manada join; manada reinit NODE makes it anew",
		"promote":    "manada failover NODE",
		"follow":     "standbys follow the primary by themselves; manada status shows it",
		"switchover": "manada switchover NODE",
	},
	"node": {
		"status": "", "check": "manada status --check",
		"rejoin":  "a node rejoins by itself when its host is started; manada reinit NODE makes it anew",
		"service": "systemctl restart manada  or  manada down and manada up",
		"control": "systemctl restart manada  or  manada down and manada up",
	},
	"cluster": {
		"show": "", "event": "manada history", "matrix": "manada status", "crosscheck": "manada status",
		"cleanup": "there is nothing to clean up: the newest 1000 events are kept",
	},
	"witness": {"register": noRegister, "unregister": noUnregister},
	"service": {"status": "manada status", "pause": "manada pause", "unpause": "manada resume"},
	"daemon":  {"status": "manada status", "pause": "manada pause", "unpause": "manada resume", "start": noRepmgrd, "stop": noRepmgrd},
	"bdr":     {"register": "there is no BDR", "unregister": "there is no BDR"},
}

const (
	noRegister   = "nothing is registered by hand: manada join makes a host a member"
	noUnregister = "manada node remove NODE"
	noRepmgrd    = "there is no repmgrd: systemctl start or stop manada"
)

// taken are the flags that are obeyed; those with true want a value.
var taken = map[string]bool{
	"help": false, "version": false, "version-number": false, "config-file": true, "csv": false, "compact": false,
	"terse": false, "verbose": false, "quiet": false,
}

var short = map[byte]string{'?': "help", 'V': "version", 'f': "config-file", 't': "terse", 'v': "verbose", 'q': "quiet"}

// refused are repmgr's other flags, with what to do instead.
var refused = map[string]string{
	"pg_bindir": "see postgresql.bin_dir", "force": "nothing needs force here", "dbname": ownWay, "host": ownWay, "port": ownWay,
	"username": ownWay, "superuser": ownWay, "pgdata": "see data_dir", "node-id": "", "node-name": "",
	"log-level": "use --quiet or --verbose", "log-to-file": "", "dry-run": "nothing would be changed anyway", "remote-user": "nothing goes over SSH",
}

const ownWay = "the herd is found by $MANADA_CONFIG, ./herd or /etc/manada/manada.yaml, or by -f FILE"

var refusedShort = map[byte]string{'b': "pg_bindir", 'F': "force", 'd': "dbname", 'h': "host", 'p': "port", 'U': "username", 'S': "superuser",
	'D': "pgdata", 'L': "log-level", 'R': "remote-user"}

// parseArgs reads options wherever they stand, as getopt does.
func parseArgs(args []string) (line, []string) {
	var l line
	var problems []string
	for i := 0; i < len(args); i++ {
		a := args[i]
		switch {
		case a == "--":
			l.words = append(l.words, args[i+1:]...)
			return l, problems
		case strings.HasPrefix(a, "--"):
			name, value, has := strings.Cut(a[2:], "=")
			if taken[name] && !has {
				if i++; i == len(args) {
					return l, append(problems, fmt.Sprintf("option '--%s' requires an argument", name))
				}
				value = args[i]
			}
			if p := l.set(name, value); p != "" {
				return l, append(problems, p)
			}
		case len(a) > 1 && a[0] == '-':
			used, p := l.shorts(a[1:], args[i+1:])
			if p != "" {
				return l, append(problems, p)
			}
			i += used
		default:
			l.words = append(l.words, a)
		}
	}
	return l, problems
}

// shorts reads a cluster of short options; used says whether the next argument
// was the value of the last.
func (l *line) shorts(cluster string, next []string) (used int, problem string) {
	for n := 0; n < len(cluster); n++ {
		name, ok := short[cluster[n]]
		if r, is := refusedShort[cluster[n]]; is {
			return 0, l.set(r, "")
		}
		if !ok {
			return 0, fmt.Sprintf("invalid option -- '%c'", cluster[n])
		}
		value := ""
		if taken[name] {
			value = cluster[n+1:]
			if value == "" {
				if len(next) == 0 {
					return 0, fmt.Sprintf("option requires an argument -- '%c'", cluster[n])
				}
				value, used = next[0], 1
			}
			n = len(cluster)
		}
		if p := l.set(name, value); p != "" {
			return used, p
		}
	}
	return used, ""
}

func (l *line) set(name, value string) string {
	if why, ok := refused[name]; ok {
		return strings.TrimSuffix(fmt.Sprintf("option '--%s' is not supported here: %s", name, why), ": ")
	}
	switch name {
	case "help":
		l.help = true
	case "version":
		l.version = true
	case "version-number":
		l.versionNumber = true
	case "config-file":
		l.file = value
	case "csv":
		l.csv = true
	case "compact":
		l.compact = true
	case "terse":
		l.terse = true
	case "verbose":
		l.verbose = true
	case "quiet":
		l.quiet = true
	default:
		return fmt.Sprintf("unrecognized option '--%s'", name)
	}
	return ""
}

// check says what is wrong with the words.
func (l line) check() []string {
	if len(l.words) == 0 {
		return []string{"no repmgr command provided"}
	}
	actions, ok := known[l.words[0]]
	if !ok {
		return []string{fmt.Sprintf("unknown repmgr command '%s'", l.words[0])}
	}
	if len(l.words) == 1 {
		return []string{fmt.Sprintf("no action provided for command '%s'", l.words[0])}
	}
	instead, ok := actions[l.words[1]]
	switch {
	case !ok:
		return []string{fmt.Sprintf("unknown repmgr action '%s %s'", l.words[0], l.words[1])}
	case instead != "":
		return []string{fmt.Sprintf("'repmgr %s %s' is not supported here: %s", l.words[0], l.words[1], instead)}
	case len(l.words) > 2:
		return []string{fmt.Sprintf("too many command-line arguments (first extra is \"%s\")", l.words[2])}
	case l.command() == "node status" && l.compact:
		return []string{"option '--compact' is not supported here: it is for cluster show"}
	case l.csv && l.compact:
		return []string{"option '--compact' is not supported here: together with --csv it has no meaning"}
	}
	return nil
}

const helpText = `repmgr: the herd of Manada, as repmgr 5 would show it

Usage:
    repmgr [OPTIONS] cluster show
    repmgr [OPTIONS] node    status

  Everything else that repmgr does Manada does by itself or by a command of its
  own, which is named when it is asked for here.

Options:
  -?, --help                          show this help, then exit
  -V, --version                       output version information, then exit
  --version-number                    output version number, then exit
  -f, --config-file=PATH              a repmgr.conf, whose node_name says which node is meant,
                                      or the YAML file of a host
  --csv                               emit output as comma-separated values
  --compact                           (cluster show) without the connection strings
  -t, --terse                         don't display warnings and hints
  -v, --verbose                       say why a node cannot be reached
  -q, --quiet                         suppress all log output apart from errors

The herd is found as by manada: $MANADA_CONFIG (a file or a folder), ./herd or
/etc/manada/manada.yaml. Hosts without a database are not shown.

EXIT STATUS
    0  done
    1  wrong usage or configuration
    6  no host of the herd answers, or PostgreSQL here does not
   25  an issue was found
`
