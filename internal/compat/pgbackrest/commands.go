package pgbackrest

var logLevels = []string{"off", "error", "warn", "info", "detail", "debug", "trace"}

// allCommands are those of pgBackRest 2.45, of which ours are the first.
var allCommands = append(append([]string{}, ourCommands...), "annotate", "repo-create", "repo-get", "repo-ls", "repo-put", "repo-rm",
	"manifest", "server", "server-ping", "stanza-delete", "stanza-upgrade", "start", "stop", "verify")

var ourCommands = []string{"archive-get", "archive-push", "backup", "check", "expire", "help", "info", "restore", "stanza-create", "version"}
