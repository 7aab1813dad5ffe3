package pgbackrest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"manada/internal/backup"
	"manada/internal/cli"
	"manada/internal/config"
	"manada/internal/peer"
	"manada/internal/repo"
)

// Codes of pgBackRest's errors that internal/backup has no use for.
const (
	codeCommandRequired = 30
	codeOptionInvalid   = 31
	codeOptionValue     = 32
	codeOptionRequired  = 37
	codeParamRequired   = 43
	codeCommandInvalid  = 48
	codeFileMissing     = 55
	codeTerm            = 63
	codeParamInvalid    = 96
	codeUnhandled       = 103
)

// face is one command on its way.
type face struct {
	line
	conf *file
	herd *cli.Herd
	log  *logger
	out  io.Writer
}

// Main runs a command line of pgbackrest, without the program's name, and
// returns the exit code: 0, or the code of the error.
func Main(args []string, _ io.Reader, out, errw io.Writer) int {
	f := &face{out: out, log: newLogger(out, errw)}
	err := f.main(args)
	if err == nil {
		return 0
	}
	var quiet exitCode
	if errors.As(err, &quiet) {
		return int(quiet)
	}
	e := explained(err)
	f.log.failure(e)
	return e.Code
}

// exitCode ends a command that has said everything itself.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit %d", int(e)) }

func (f *face) main(args []string) error {
	var err error
	if f.line, err = parseArgs(args); err != nil {
		return err
	}
	if f.command.name == "help" || f.command.name == "" {
		return f.help()
	}
	if f.command.name == "version" {
		_, err := fmt.Fprintln(f.out, "pgBackRest "+repo.Version)
		return err
	}
	f.fromEnvironment(os.Environ())
	if err := f.fromFile(); err != nil {
		return err
	}
	if err := f.complete(); err != nil {
		return err
	}
	f.log.set(f.text("log-level-console"), f.text("log-level-stderr"), f.text("log-timestamp") != "n")
	f.tellIdle()
	ctx, stop := signal.NotifyContext(root(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	began := time.Now()
	f.log.info("%s command begin %s:%s", f.command.name, repo.Version, f.said())
	err = f.work(ctx)
	f.end(began, err)
	return err
}

// tellIdle warns of options that were given, do nothing here, and of which
// something was expected. What is asked for all the time stays silent.
func (f *face) tellIdle() {
	if !contains([]string{"backup", "check", "expire", "restore", "stanza-create", "verify"}, f.command.name) {
		return
	}
	for _, name := range f.names() {
		v := f.values[name]
		if o := v.option; o.standing == idle && o.told && v.texts[0] != o.harmless {
			f.log.warn("option '%s' has no effect in Manada: %s", o.written(), o.why)
		}
	}
}

// root is the context of the process.
func root() context.Context {
	return context.Background() // detached: the face is the root of its process
}

func (f *face) work(ctx context.Context) error {
	var err error
	if f.herd, err = cli.OpenHerd(config.Where{}, os.Environ()); err != nil {
		return err
	}
	if stanza := f.text("stanza"); stanza != "" {
		if have := f.herd.Hosts()[0].Backup.Stanza; stanza != have && f.command.name != "info" {
			return fail(codeOptionValue, "the stanza of a herd is backup.stanza in its configuration", "stanza '%s' is not this herd's, which is '%s'", stanza, have)
		}
	}
	if err := f.sameRepository(); err != nil {
		return err
	}
	return f.command.run(f, ctx)
}

// elsewhere is a repository that was typed and is not the herd's; "" when none
// was.
func (f *face) elsewhere() string {
	v := f.values["repo-path"]
	if v == nil || !v.typed {
		return ""
	}
	for _, h := range f.herd.Hosts() {
		if filepath.Clean(v.texts[0]) == h.Backup.RepoPath {
			return ""
		}
	}
	return filepath.Clean(v.texts[0])
}

// sameRepository: only info looks into another one.
func (f *face) sameRepository() error {
	if path := f.elsewhere(); path != "" && f.command.name != "info" {
		return fail(codeOptionInvalid, "leave --repo1-path out", "option 'repo1-path' with value '%s' is not supported by Manada: %s works on the herd's repository", path, f.command.name)
	}
	return nil
}

func (f *face) end(began time.Time, err error) {
	var quiet exitCode
	switch {
	case err == nil, errors.As(err, &quiet) && quiet == 1:
		took := ""
		if f.log.stamps {
			took = fmt.Sprintf(" (%dms)", time.Since(began).Milliseconds())
		}
		f.log.info("%s command end: completed successfully%s", f.command.name, took)
	case errors.As(err, &quiet):
		f.log.info("%s command end: terminated on signal [SIGINT]", f.command.name)
	default:
		defer f.log.info("%s command end: aborted with exception [%03d]", f.command.name, explained(err).Code)
	}
}

func fail(code int, hint, format string, args ...any) error {
	return &backup.Error{Code: code, Hint: hint, Text: fmt.Sprintf(format, args...)}
}

// refusals of agents, and the code of pgBackRest that is nearest.
var refusals = map[string]int{
	"no_primary": backup.CodeDBConnect, "no_repository": backup.CodePathMissing, "backup_running": backup.CodeLock,
	peer.CodeUnavailable: backup.CodeDBConnect,
}

// explained gives an error a code, and its hint apart from its text.
func explained(err error) *backup.Error {
	var e *backup.Error
	if errors.As(err, &e) {
		text := strings.Replace(err.Error(), "\nHINT: "+e.Hint, "", 1)
		return &backup.Error{Code: e.Code, Text: text, Hint: e.Hint}
	}
	var p *peer.Error
	if errors.As(err, &p) {
		code := refusals[p.Code]
		if code == 0 {
			code = codeUnhandled
		}
		return &backup.Error{Code: code, Text: p.Message, Hint: p.Hint}
	}
	message, hint := cli.ErrorText(err)
	return &backup.Error{Code: codeUnhandled, Text: message, Hint: hint}
}

func (f *face) help() error {
	if len(f.params) > 0 {
		c, ok := commandOf(f.params[0])
		if !ok {
			return unknownCommand(f.params[0])
		}
		fmt.Fprintf(f.out, "pgBackRest %s - '%s' command help\n\n%s\n\nCommand Options:\n\n", repo.Version, c.name, c.text)
		for _, o := range Options {
			if o.standing == honoured && o.takes(c.name) {
				fmt.Fprintf(f.out, "  --%s\n", o.written())
			}
		}
		_, err := fmt.Fprintln(f.out, "\nOther options of pgBackRest 2.45 have no effect, or are refused by their name.")
		return err
	}
	fmt.Fprintf(f.out, "pgBackRest %s - General help\n\nUsage:\n    pgbackrest [options] [command]\n\nCommands:\n", repo.Version)
	for _, c := range commands {
		fmt.Fprintf(f.out, "    %-16s%s\n", c.name, c.text)
	}
	_, err := fmt.Fprintln(f.out, "\nUse 'pgbackrest help [command]' for more information.")
	return err
}
