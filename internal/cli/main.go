package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"manada/internal/config"
)

// app is what every command shares.
type app struct {
	in       io.Reader
	out, err io.Writer
	environ  []string
	where    config.Where
	output   string // -o of commands that read
	accepted string // --accepted of processes: the contents of the configuration
}

// Main runs a command line and returns its exit code.
func Main(args []string, in io.Reader, out, errw io.Writer) int {
	a := &app{in: in, out: out, err: errw, environ: os.Environ()}
	root := newRoot(a)
	root.SetArgs(args[1:])
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errw)
	ctx, stop := interruptible()
	defer stop()
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	var f *failure
	if ctx.Err() != nil && !errors.As(err, &f) {
		err = context.Canceled
	}
	return report(errw, err, a.output == "json")
}

// interruptible ends its context at the first SIGINT or SIGTERM; a second one
// kills the command as usual. (`run` and the processes handle their signals
// themselves.)
func interruptible() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		select {
		case <-ch:
			signal.Stop(ch)
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, func() { signal.Stop(ch); cancel() }
}

// say prints a message for people.
func (a *app) say(format string, args ...any) { fmt.Fprintf(a.err, format+"\n", args...) }

// print prints data.
func (a *app) print(format string, args ...any) { fmt.Fprintf(a.out, format+"\n", args...) }
