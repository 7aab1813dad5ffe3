package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"manada/internal/agent"
	"manada/internal/config"
	"manada/internal/herd"
	"manada/internal/pki"
	"manada/internal/verb"
)

func (a *app) initCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "init",
		Short: "Found a new herd on its first host",
		Long: `Found a new herd: make its certificate authority, the identity of this host and
the passwords of its roles, below data_dir. Nothing is started. The first start
of this host then makes the database. Done twice it does nothing; a host that
belongs to a herd already is refused.` + exits(exitFailed, exitUsage),
		Example: "  manada init\n  manada init -c /etc/manada/manada.yaml",
		Args:    noArgs,
		RunE:    func(*cobra.Command, []string) error { return a.init() },
	}
}

// host loads and checks this host's configuration, token aside.
func (a *app) host() (*config.Config, config.Account, error) {
	c, err := a.oneHost()
	if err != nil {
		return nil, config.Account{}, err
	}
	check := *c
	check.Join.TokenFile = ""
	if err := check.Check(); err != nil {
		return nil, config.Account{}, err
	}
	account, err := c.RunAs()
	return c, account, err
}

func (a *app) init() error {
	c, account, err := a.host()
	if err != nil {
		return err
	}
	if err := herd.Found(c, account); err != nil {
		if errors.Is(err, pki.ErrExists) {
			return fail(exitFailed, "to begin anew, stop it and remove "+c.DataDir+" with all its data", "%w", err)
		}
		return err
	}
	a.print("The herd %s is founded; %s is its first host.\n", c.Cluster, c.Node)
	a.print("Next:")
	a.print("  systemctl enable --now manada      (or: manada run -c %s)", c.File)
	a.print("  manada node token                  a token for each further host")
	a.print("  manada join %s    on that host, with its own manada.yaml", c.AdvertiseOn(c.Ports.Peer))
	return nil
}

func (a *app) joinCmd() *cobra.Command {
	var tokenFile string
	c := &cobra.Command{
		Use:   "join ADDRESS...",
		Short: "Make this host a member of a herd",
		Long: `Make this host a member of the herd one of whose members answers at ADDRESS
(HOST or HOST:PORT; port 7400 unless given). It gets its identity and what it
must know; its database and its vote follow at its first start.

The token (manada node token, on a member) is read from --token-file, else from
join.token_file of the configuration, else from standard input: never from the
command line, which others can read.` + exits(exitFailed, exitUsage),
		Example: "  manada join 10.0.0.11 --token-file /root/token\n  ssh pg1 manada node token | manada join pg1:7400",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usage("manada join 10.0.0.11", "the address of a member is missing")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error { return a.join(c.Context(), args, tokenFile) },
	}
	c.Flags().StringVar(&tokenFile, "token-file", "", "`FILE` that holds the token; - is standard input")
	return c
}

func (a *app) join(ctx context.Context, args []string, tokenFile string) error {
	c, account, err := a.host()
	if err != nil {
		return err
	}
	if herd.Member(c) {
		return fail(exitFailed, "systemctl enable --now manada  starts it", "host %s belongs to a herd already: %s holds its identity", c.Node, c.IdentityDir())
	}
	var addrs []string
	for _, s := range args {
		if _, _, err := net.SplitHostPort(s); err != nil {
			s = net.JoinHostPort(strings.Trim(s, "[]"), "7400")
		}
		addrs = append(addrs, s)
	}
	secret, err := a.token(c, tokenFile)
	if err != nil {
		return err
	}
	via, err := herd.Join(ctx, c, account, addrs, secret, Version())
	if err != nil {
		return joinFailure(err)
	}
	a.print("%s is a member of the herd %s now (taken in by %s).\n", c.Node, c.Cluster, via)
	a.print("Next:")
	a.print("  systemctl enable --now manada      (or: manada run -c %s)", c.File)
	a.print("  manada status")
	return nil
}

func joinFailure(err error) error {
	var j *pki.JoinError
	if errors.As(err, &j) {
		msg := j.Err.Error()
		if j.Detail != "" {
			msg += ": " + j.Detail
		}
		return fail(exitFailed, j.Hint, "%s", msg)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return fail(exitFailed, "does  manada run  run there, and is its port (7400) open to this host? Nothing was changed here", "%w", err)
	}
	return err
}

// token reads the join token from where it was said to be.
func (a *app) token(c *config.Config, file string) (string, error) {
	if file == "" && c.Join.TokenFile != "" {
		file = c.Join.TokenFile
	}
	if file == "" || file == "-" {
		return a.readSecret("Join token: ")
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return "", fail(exitUsage, "", "read token: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

func (a *app) nodeCmd() *cobra.Command {
	c := &cobra.Command{
		Use:     "node",
		Short:   "Let hosts into the herd, or remove one that is gone",
		Long:    "Let hosts into the herd, or remove one that is gone for good." + exits(exitFailed, exitUsage),
		Example: "  manada node token\n  manada node remove pg2",
		Args:    noArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(a.nodeTokenCmd(), a.nodeRemoveCmd())
	return c
}

// kinds are the kinds of hosts as a user names them.
var kinds = map[string]string{"": "", "database": pki.KindData, "witness": pki.KindWitness, "proxy": pki.KindProxy}

func (a *app) nodeTokenCmd() *cobra.Command {
	var node, kind string
	c := &cobra.Command{
		Use:   "token",
		Short: "Print a token with which one host can join",
		Long: `Print a token with which one host can join the herd: good once, for an hour. It
is a secret; hand it over in a file or a pipe. --node and --kind narrow who may
use it.` + exits(exitFailed, exitUsage, exitUnknown),
		Example: "  manada node token > token && chmod 600 token\n  manada node token --node pg2 --kind database | ssh pg2 manada join 10.0.0.11",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			asked, known := kinds[kind]
			if !known {
				return usage("manada node token --help", "--kind %s: want database, witness or proxy", kind)
			}
			call, err := a.open()
			if err != nil {
				return err
			}
			var answer struct {
				Token string `json:"token"`
			}
			if err := call.write(c.Context(), verb.Token, agent.TokenVerb{Node: node, Kind: asked}, &answer); err != nil {
				return err
			}
			a.print("%s", answer.Token)
			a.say("good once, for an hour; on the new host:  manada join %s", firstAddr(call))
			return nil
		},
	}
	c.Flags().StringVar(&node, "node", "", "only a host of this name may join with it")
	c.Flags().StringVar(&kind, "kind", "", "only a host of this kind: database, witness or proxy")
	return c
}

func firstAddr(c *caller) string {
	if len(c.target) == 0 {
		return "ADDRESS"
	}
	return c.target[0].addr
}

func (a *app) nodeRemoveCmd() *cobra.Command {
	var yes, force bool
	c := &cobra.Command{
		Use:   "remove NAME",
		Short: "Take a host that is gone for good out of the herd",
		Long: `Take a host that is gone for good, or a proxy, out of the herd, with its vote.
Its certificates open nothing any more, and its connections end within seconds.
A host that leads or that commits wait for is refused, and so is one that
answers unless --force is given: for a host that was stolen. Join tokens that
were made before are worthless then: make new ones (manada node token).` + exits(exitFailed, exitUsage, exitUnknown),
		Example: "  manada node remove pg2 --yes",
		Args:    exactly("the name of a host"),
		RunE: func(c *cobra.Command, args []string) error {
			call, err := a.open()
			if err != nil {
				return err
			}
			if err := a.confirm(yes, args[0], fmt.Sprintf("This takes the host %s and its vote out of the herd %s.", args[0], call.id.Cluster())); err != nil {
				return err
			}
			if err := call.write(c.Context(), verb.Remove, map[string]any{"node": args[0], "force": force}, nil); err != nil {
				return err
			}
			a.say("host %s is removed; join tokens that were made before are worthless: manada node token", args[0])
			return nil
		},
	}
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	c.Flags().BoolVar(&force, "force", false, "also a host that answers")
	return c
}
