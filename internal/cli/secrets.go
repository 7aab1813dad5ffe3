package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os/user"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"manada/internal/cluster"
	"manada/internal/herd"
	"manada/internal/pki"
	"manada/internal/process"
	"manada/internal/rotate"
	"manada/internal/verb"
)

func (a *app) secretsCmd() *cobra.Command {
	c := &cobra.Command{
		Use:   "secrets",
		Short: "Passwords, certificates and the authority of the herd",
		Long: `Make the herd's passwords, its hosts' certificates or its authority new while it
runs, see how far that has come, or tell the herd a password that was changed by
hand.` + exits(exitFailed, exitUsage),
		Example: "  manada secrets rotate passwords\n  manada secrets status",
		Args:    noArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(a.secretsRotateCmd(), a.secretsStatusCmd(), a.secretsSetCmd())
	return c
}

// rotations are what `secrets rotate` takes.
var rotations = map[string][]string{
	"passwords":    {pki.RotatePasswords},
	"certificates": {pki.RotateCertificates},
	"ca":           {pki.RotateCA},
	"all":          {pki.RotatePasswords, pki.RotateCA},
}

func (a *app) secretsRotateCmd() *cobra.Command {
	var finish bool
	var timeout time.Duration
	c := &cobra.Command{
		Use:   "rotate passwords|certificates|ca|all",
		Short: "Make secrets of the herd new while it runs",
		Long: `Make secrets of the herd new while it runs; connections that are open go on.

  passwords     of the herd's own roles, and the superuser's if the herd made it
  certificates  a new key and certificate for each host
  ca            a new authority beside the former one, with new certificates;
                also the key under which the store keeps the authority
  all           all of these

A password that people chose is named and left alone. A host that is off gets
what is new when it comes back. After ca or all give ca.crt of any host to every
application, then end the former authority with  rotate ca --finish .` + exits(exitFailed, exitUsage, exitUnknown),
		Example: "  manada secrets rotate all\n  manada secrets rotate ca --finish",
		Args:    exactly("what to rotate: passwords, certificates, ca or all"),
		RunE: func(c *cobra.Command, args []string) error {
			what, ok := rotations[args[0]]
			if !ok {
				return usage("manada secrets rotate --help", "cannot rotate %q: want passwords, certificates, ca or all", args[0])
			}
			if finish && args[0] != "ca" {
				return usage("manada secrets rotate ca --finish", "--finish ends the former authority, which `rotate ca` replaced")
			}
			if finish {
				what = []string{pki.RotateFinish}
			}
			return a.rotate(c.Context(), what, timeout)
		},
	}
	c.Flags().BoolVar(&finish, "finish", false, "end the trust in the former authority")
	c.Flags().DurationVar(&timeout, "timeout", 2*time.Minute, "how long to wait for it")
	return c
}

// rotate orders it and waits until every host has taken it up.
func (a *app) rotate(ctx context.Context, what []string, timeout time.Duration) error {
	c, err := a.open()
	if err != nil {
		return err
	}
	q := process.RotateVerb{What: what}
	if u, err := user.Current(); err == nil {
		q.By = u.Username
	}
	began := time.Now()
	s, err := a.changeSecrets(ctx, c, verb.Rotate, q, timeout)
	if err != nil {
		return err
	}
	a.tellKept(s)
	a.print("generation %d of the herd's secrets is in use (%.1f s)", s.Generation, time.Since(began).Seconds())
	a.tellBehind(s)
	if s.Former {
		a.say("give ca.crt of any host to every application, then type:  manada secrets rotate ca --finish")
	}
	_, _ = a.findURI(ctx, herd.URIOptions{}) // writes the passfile of `manada uri` anew, where this host has one
	return nil
}

// changeSecrets has the herd's secrets changed, and waits until every host that is up has
// taken up what is new.
func (a *app) changeSecrets(ctx context.Context, c *caller, v verb.Verb, q any, timeout time.Duration) (rotate.State, error) {
	wait, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	before, _, err := read[rotate.State](wait, c, verb.Secrets, 2*time.Second)
	if err != nil {
		return before, err
	}
	if err := c.write(wait, v, q, nil); err != nil {
		return before, err
	}
	s, err := a.followRotation(wait, c, before.Generation)
	switch {
	case ctx.Err() != nil:
		err = fail(exitInterrupted, "manada secrets status  says what became of it", "interrupted; the herd goes on with it")
	case err != nil:
		err = fail(exitUnknown, "manada secrets status  says what became of it", "not done within %s", timeout)
	}
	return s, err
}

// followRotation waits until the generation after before is in use on every
// host that is up.
func (a *app) followRotation(ctx context.Context, c *caller, before uint64) (rotate.State, error) {
	said := ""
	for {
		s, _, err := read[rotate.State](ctx, c, verb.Secrets, 2*time.Second)
		if err == nil && s.Generation > before && s.Pending == nil && !s.Spreading && len(s.Waiting()) == 0 {
			return s, nil
		}
		if err == nil && s.Generation > before {
			if w := strings.Join(s.Waiting(), ", "); w != said && w != "" {
				said = w
				a.say("waiting for %s", w)
			}
		}
		select {
		case <-ctx.Done():
			return s, ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (a *app) tellBehind(s rotate.State) {
	if len(s.Behind) > 0 {
		a.say("not up, so they get it when they come back: %s", strings.Join(s.Behind, ", "))
	}
}

func (a *app) tellKept(s rotate.State) {
	if s.Last == nil {
		return
	}
	for role, why := range s.Last.Kept {
		a.say("the password of %s was left as it is: %s", role, why)
	}
}

func (a *app) secretsStatusCmd() *cobra.Command {
	c := &cobra.Command{
		Use:   "status",
		Short: "Say how far a rotation has come",
		Long: `Say which generation of secrets the herd has, what made it, and which hosts have
not taken it up.` + exits(exitFailed, exitUsage),
		Example: "  manada secrets status",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			call, err := a.open()
			if err != nil {
				return err
			}
			s, _, err := read[rotate.State](c.Context(), call, verb.Secrets, 2*time.Second)
			if err != nil {
				return err
			}
			if a.output == "json" {
				return json.NewEncoder(a.out).Encode(struct {
					Schema int `json:"schema"`
					rotate.State
				}{1, s})
			}
			a.printSecrets(s)
			return nil
		},
	}
	a.outputFlag(c)
	return c
}

func (a *app) printSecrets(s rotate.State) {
	if s.Last == nil {
		a.print("generation %d: as the herd was founded", s.Generation)
	} else {
		why := ""
		if len(s.Last.Removed) > 0 {
			why = ", for the removal of " + strings.Join(s.Last.Removed, ", ")
		}
		a.print("generation %d: %s, ordered at %s%s", s.Generation, strings.Join(s.Last.What, ", "), s.Last.At.Local().Format("2006-01-02 15:04:05"), why)
	}
	a.tellKept(s)
	if s.Spreading {
		a.print("passwords: being handed to the hosts; PostgreSQL has the former ones")
	}
	if len(s.Behind) > 0 {
		a.print("not taken up by: %s", strings.Join(s.Behind, ", "))
	}
	if len(s.Voters) > 0 {
		a.print("voters that start again by themselves, one after the other: %s", strings.Join(s.Voters, ", "))
	}
	if s.Pending != nil {
		a.print("ordered and not begun: %s", strings.Join(s.Pending.What, ", "))
	}
	if s.Former {
		a.print("the former authority still counts for applications; end it with:  manada secrets rotate ca --finish")
	}
	if s.Exposed {
		a.print("a removed host knows the former join secret: nobody joins with that one")
	}
}

func (a *app) secretsSetCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "set superuser",
		Short: "Tell the herd the superuser's password that was changed by hand",
		Long: `Tell the herd the password of postgres that was changed in the database, so that
manada uri works again. It is read from standard input, its first line, and
taken if PostgreSQL says that it is the right one; then every host that is up is
waited for. From then on it is one that people chose: a rotation leaves it
alone.` + exits(exitFailed, exitUsage, exitUnknown),
		Example: "  manada secrets set superuser < file",
		Args:    exactly("superuser"),
		RunE: func(c *cobra.Command, args []string) error {
			if args[0] != "superuser" {
				return usage("manada secrets set superuser < file", "cannot set %q: only the superuser's password", args[0])
			}
			line, err := bufio.NewReader(io.LimitReader(a.in, 4096)).ReadString('\n')
			if err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			if line = strings.TrimRight(line, "\r\n"); line == "" {
				return usage("manada secrets set superuser < file", "standard input holds no password")
			}
			call, err := a.open()
			if err != nil {
				return err
			}
			return a.setSuperuser(c.Context(), call, line)
		},
	}
}

// setSuperuser waits until every host that is up knows it: `manada uri`, typed next, asks
// the files of one of them.
func (a *app) setSuperuser(ctx context.Context, c *caller, password string) error {
	s, err := a.changeSecrets(ctx, c, verb.Superuser, process.SuperuserVerb{Password: password}, time.Minute)
	if err != nil {
		return err
	}
	a.say("the herd knows the password of %s", cluster.RoleSuperuser)
	a.tellBehind(s)
	return nil
}
