package cli

import (
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"manada/internal/config"
)

const rootLong = `Manada is PostgreSQL high availability in one program: it supervises the
database, replicates synchronously, fails over in about a second without losing
an acknowledged commit, routes connections, and backs up and restores.

A command finds its herd by -c FILE, --dir DIR, $MANADA_CONFIG (a file or a
folder), ./herd or /etc/manada/manada.yaml, in this order. Any host of the herd
answers for all of it.`

const rootExample = `  manada up                      make and start a herd on this machine
  manada status                  is it well, and why not
  psql "$(manada uri)"           connect to it
  manada switchover slave        let another node be the primary
  manada backup --type incr      back up what changed
  manada down                    stop it`

func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:           "manada",
		Short:         "PostgreSQL high availability in one program",
		Long:          rootLong + exits(exitFailed, exitUsage, exitDegraded, exitNoPrimary, exitRefused, exitUnknown),
		Example:       rootExample,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
		Args:          noArgs,
	}
	root.DisableSuggestions = true // ours: see usageUnknown
	root.CompletionOptions.HiddenDefaultCmd = true
	f := root.PersistentFlags()
	f.StringVarP(&a.where.File, "config", "c", "", "configuration `FILE` of a host")
	f.StringVar(&a.where.Dir, "dir", "", "folder `DIR` of a herd made by manada up")
	root.SetFlagErrorFunc(flagError)
	root.AddGroup(&cobra.Group{ID: "herd", Title: "The herd:"}, &cobra.Group{ID: "backup", Title: "Backups:"},
		&cobra.Group{ID: "host", Title: "Hosts:"}, &cobra.Group{ID: "other", Title: "Other:"})
	root.SetHelpCommandGroupID("other")
	root.SetCompletionCommandGroupID("other")
	a.addCommands(root)
	return root
}

// add puts commands into a group of the help.
func add(root *cobra.Command, group string, cmds ...*cobra.Command) {
	for _, c := range cmds {
		c.GroupID = group
		root.AddCommand(c)
	}
}

// noArgs refuses arguments; on a command with subcommands they are unknown
// commands.
func noArgs(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if c.HasSubCommands() {
		return usageUnknown(c, args[0])
	}
	return usage(c.CommandPath()+" --help", "%s takes no argument, got %q", c.CommandPath(), args[0])
}

func usageUnknown(c *cobra.Command, word string) error {
	var names []string
	for _, s := range c.Commands() {
		if !s.Hidden {
			names = append(names, s.Name())
		}
	}
	hint := c.CommandPath() + " --help  lists the commands"
	if n := config.Nearest(word, names); n != "" {
		hint = "did you mean  " + c.CommandPath() + " " + n + "  ?"
	}
	return usage(hint, "unknown command %q", word)
}

// upTo allows at most n arguments.
func upTo(n int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) > n {
			return usage(c.CommandPath()+" --help", "one argument too many: %q", args[n])
		}
		return nil
	}
}

// exactly wants the arguments that are named.
func exactly(names ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) < len(names) {
			return usage(c.CommandPath()+" --help  has examples", "%s is missing", names[len(args)])
		}
		return upTo(len(names))(c, args)
	}
}

func flagError(c *cobra.Command, err error) error {
	hint := c.CommandPath() + " --help  lists the flags"
	if word, ok := strings.CutPrefix(err.Error(), "unknown flag: --"); ok {
		var names []string
		collect := func(f *pflag.Flag) { names = append(names, f.Name) }
		c.Flags().VisitAll(collect)
		c.InheritedFlags().VisitAll(collect)
		if n := config.Nearest(word, names); n != "" {
			hint = "did you mean  --" + n + "  ?"
		}
	}
	return usage(hint, "%s", err.Error())
}

// outputFlag adds -o text|json.
func (a *app) outputFlag(c *cobra.Command) {
	c.Flags().StringVarP(&a.output, "output", "o", "text", "`FORMAT`: text or json")
	pre := c.PreRunE
	c.PreRunE = func(c *cobra.Command, args []string) error {
		if a.output != "text" && a.output != "json" {
			got := a.output
			a.output = "text"
			return usage("-o text  or  -o json", "unknown output format %q", got)
		}
		if pre != nil {
			return pre(c, args)
		}
		return nil
	}
}
