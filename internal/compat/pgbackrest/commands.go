package pgbackrest

import (
	"context"
	"strings"
)

var logLevels = []string{"off", "error", "warn", "info", "detail", "debug", "trace"}

// command is one that we have.
type command struct {
	name, text string
	stanza     bool // wants --stanza
	params     bool // takes parameters behind it
	run        func(*face, context.Context) error
}

var commands = []command{
	{"archive-get", "Get a WAL segment from the archive.", true, true, (*face).archiveGet},
	{"archive-push", "Push a WAL segment to the archive.", true, true, (*face).archivePush},
	{"backup", "Backup a database cluster.", true, false, (*face).backup},
	{"check", "Check the configuration.", true, false, (*face).check},
	{"expire", "Expire backups that exceed retention.", true, false, (*face).expire},
	{"help", "Get help.", false, true, nil},
	{"info", "Retrieve information about backups.", false, false, (*face).info},
	{"restore", "Restore a database cluster.", true, false, (*face).restore},
	{"stanza-create", "Create the required stanza data.", true, false, (*face).stanzaCreate},
	{"verify", "Verify contents of the repository.", true, false, (*face).verify},
	{"version", "Get version.", false, false, nil},
}

// elsewhere are commands of pgBackRest 2.45 that Manada does not have under this
// name, with what does their work.
var elsewhere = map[string]string{
	"annotate": "annotate when you back up: --annotation", "repo-create": "", "repo-get": "", "repo-ls": "look into the repository's folder",
	"repo-put": "", "repo-rm": "", "manifest": "", "server": "the agents talk to each other by themselves", "server-ping": "manada status",
	"stanza-delete": "remove the stanza's folders of the repository while the herd is down", "stanza-upgrade": "",
	"start": "manada resume", "stop": "manada pause",
}

// allCommands are the names of both.
var allCommands = func() []string {
	var names []string
	for _, c := range commandNames {
		names = append(names, c)
	}
	for n := range elsewhere {
		names = append(names, n)
	}
	return names
}()

var commandNames = strings.Fields("archive-get archive-push backup check expire help info restore stanza-create verify version")

func commandOf(name string) (command, bool) {
	for _, c := range commands {
		if c.name == name {
			return c, true
		}
	}
	return command{}, false
}
