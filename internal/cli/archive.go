package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"manada/internal/agent"
	"manada/internal/backup"
	"manada/internal/peer"
	"manada/internal/postgres"
	"manada/internal/verb"
)

// archiveTimeout is longer than the agent's own deadline: its answer says more.
const archiveTimeout = 75 * time.Second

// archivePushCmd is PostgreSQL's archive_command: it hands the segment to the
// agent of this host, which knows whether this node may archive.
func (a *app) archivePushCmd() *cobra.Command {
	var socket string
	c := &cobra.Command{
		Use: "archive-push PATH", Short: "archive_command", Hidden: true, Args: exactly("the path of a WAL segment"),
		RunE: func(c *cobra.Command, args []string) error {
			path, err := filepath.Abs(args[0]) // PostgreSQL gives it relative to its data directory
			if err != nil {
				return err
			}
			return callAgent(c.Context(), socket, verb.ArchivePush, agent.ArchiveCall{Path: path})
		},
	}
	c.Flags().StringVar(&socket, "socket", "", "`PATH` of the agent's socket")
	return c
}

// archiveGetCmd is PostgreSQL's restore_command. A file that is not there is exit
// code 1. What else fails depends on who asks. A member of the herd (--socket)
// and a copy that is a standby get 1 again: they try again, and a code above 125
// would shut them down. A copy that recovers to an end gets 255: with any code up
// to 125 PostgreSQL takes the archive to end here, and recovery with it.
func (a *app) archiveGetCmd() *cobra.Command {
	var socket string
	var standby bool
	outcome := func(err error) error {
		switch f := (*failure)(nil); {
		case err == nil, errors.As(err, &f) && f.err == nil:
			return err
		case socket != "" || standby:
			_, message, hint := explain(err)
			return fail(exitFailed, hint, "%s", message)
		}
		_, message, hint := explain(err)
		return fail(exitBroken, hint, "%s", message)
	}
	c := &cobra.Command{
		Use: "archive-get NAME DEST", Short: "restore_command", Hidden: true,
		Args: func(c *cobra.Command, args []string) error {
			return outcome(exactly("the name of a WAL file", "its destination")(c, args))
		},
		RunE: func(c *cobra.Command, args []string) error {
			dest, err := filepath.Abs(args[1])
			switch {
			case err != nil:
			case socket == "":
				err = a.archiveGet(c.Context(), args[0], dest)
			default:
				err = callAgent(c.Context(), socket, verb.ArchiveGet, agent.ArchiveCall{Name: args[0], Dest: dest})
			}
			var p *peer.Error
			if errors.As(err, &p) && p.Status == http.StatusNotFound {
				return quiet(exitFailed) // asked for every second by a standby: no line in its log
			}
			return outcome(err)
		},
	}
	c.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return outcome(err) })
	c.Flags().StringVar(&socket, "socket", "", "`PATH` of the agent's socket")
	c.Flags().BoolVar(&standby, "standby", false, "for a standby, which tries again whatever fails")
	return c
}

// recoveryEndCmd is the recovery_end_command of a copy: PostgreSQL has written the
// history of the timeline that it begins, and reads it only afterwards. The line
// goes into PostgreSQL's log.
func (a *app) recoveryEndCmd() *cobra.Command {
	return &cobra.Command{
		Use: "recovery-end PG_WAL", Short: "recovery_end_command", Hidden: true, Args: exactly("the folder of the WAL"),
		RunE: func(_ *cobra.Command, args []string) error {
			was, err := postgres.MendHistory(args[0])
			if err == nil && was != "" {
				a.say("put right: %s", was)
			}
			return err
		},
	}
}

// archiveGet fetches from the repository itself, for a restored directory that
// is no member of the herd.
func (a *app) archiveGet(ctx context.Context, name, dest string) error {
	c, err := a.open()
	if err != nil {
		return err
	}
	return archiveGetFrom(ctx, c, name, dest)
}

func archiveGetFrom(ctx context.Context, c *caller, name, dest string) error {
	r, err := c.openRepository()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, archiveTimeout)
	defer cancel()
	err = backup.ArchiveGet(ctx, backup.ArchiveOptions{Storage: r.storage, Stanza: r.cfg.Backup.Stanza}, name, dest)
	if errors.Is(err, backup.ErrNotFound) {
		return quiet(exitFailed)
	}
	return err
}

// callAgent asks the agent of this host over its unix socket.
func callAgent(ctx context.Context, socket string, v verb.Verb, call agent.ArchiveCall) error {
	if socket == "" {
		return usage("", "--socket is missing")
	}
	ctx, cancel := context.WithTimeout(ctx, archiveTimeout)
	defer cancel()
	err := (&peer.Client{Socket: socket}).Call(ctx, "", "", v, call, nil)
	if _, refused := errors.AsType[*peer.Error](err); err != nil && !refused {
		return fmt.Errorf("ask the agent of this host: %w", err)
	}
	return err
}
