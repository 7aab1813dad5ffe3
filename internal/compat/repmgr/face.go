package repmgr

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"manada/internal/cli"
	"manada/internal/config"
)

// version of repmgr that is answered for.
const version = "5.3.3"

// Main answers a command line of repmgr.
func Main(args []string, _ io.Reader, out, errw io.Writer) int {
	// detached: the process is the caller.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	l, problems := parseArgs(args)
	switch {
	case l.help:
		fmt.Fprint(out, helpText)
		return success
	case l.version:
		fmt.Fprintf(out, "repmgr %s (manada %s)\n", version, cli.Version())
		return success
	case l.versionNumber:
		fmt.Fprintln(out, "50303")
		return success
	}
	if len(problems) == 0 {
		problems = l.check()
	}
	if len(problems) > 0 {
		return usage(errw, l, problems)
	}
	f := face{ctx: ctx, line: l, out: out, err: errw}
	return f.run()
}

// usage prints what is wrong with the command line as repmgr does.
func usage(w io.Writer, l line, problems []string) int {
	fmt.Fprintln(w, "The following command line errors were encountered:")
	for _, p := range problems {
		fmt.Fprintln(w, "  "+p)
	}
	try := `Try "repmgr --help" for more information.`
	if len(l.words) > 0 && known[l.words[0]] != nil {
		try = fmt.Sprintf("Try \"repmgr --help\" or \"repmgr %s --help\" for more information.", l.words[0])
	}
	fmt.Fprintln(w, try)
	return errBadConfig
}

type face struct {
	ctx      context.Context
	line     line
	out, err io.Writer
	node     string // named by a repmgr.conf
}

func (f *face) run() int {
	where, code := f.where()
	if code != success {
		return code
	}
	h, err := cli.OpenHerd(where, os.Environ())
	if err != nil {
		return f.fail(errBadConfig, err)
	}
	ctx, cancel := context.WithTimeout(f.ctx, 10*time.Second)
	defer cancel()
	st, err := h.Status(ctx)
	if err != nil {
		return f.fail(errDBConn, err)
	}
	ns := nodesOf(st)
	if len(ns) == 0 {
		fmt.Fprintln(f.err, "ERROR: no node records were found")
		fmt.Fprintln(f.err, "HINT: the herd has no database yet: manada status")
		return errBadConfig
	}
	if f.line.command() == "node status" {
		return f.nodeStatus(ctx, h, ns)
	}
	return show(f.out, f.err, ns, f.line.options)
}

// where finds the herd. A configuration file of repmgr, given with -f, says only
// which node is meant; one of Manada is what -c FILE is to every command.
func (f *face) where() (config.Where, int) {
	var w config.Where
	file := f.line.file
	if file == "" {
		return w, success
	}
	r, err := os.Open(file)
	if err != nil {
		fmt.Fprintf(f.err, "ERROR: provided configuration file \"%s\" not found\nDETAIL: %s\n", file, reason(err))
		return w, errBadConfig
	}
	defer r.Close()
	if f.line.verbose && !f.line.quiet {
		fmt.Fprintf(f.err, "NOTICE: using provided configuration file \"%s\"\n", file)
	}
	if strings.HasSuffix(file, ".yaml") || strings.HasSuffix(file, ".yml") {
		w.File = file
		return w, success
	}
	s, _, err := Translate(file, r)
	if err != nil {
		return w, f.fail(errBadConfig, err)
	}
	f.node = s.NodeName
	return w, success
}

// fail prints an error in repmgr's form.
func (f *face) fail(code int, err error) int {
	message, hint := cli.ErrorText(err)
	if errors.Is(err, config.ErrNoHerd) {
		hint = "name it with -f and the YAML file of a host, or with $MANADA_CONFIG"
	}
	fmt.Fprintln(f.err, "ERROR: "+message)
	if hint != "" && !f.line.terse {
		fmt.Fprintln(f.err, "HINT: "+hint)
	}
	return code
}

// reason is the system's own word, as C programs print it.
func reason(err error) string {
	var e syscall.Errno
	if errors.As(err, &e) {
		s := e.Error()
		return strings.ToUpper(s[:1]) + s[1:]
	}
	return err.Error()
}
