package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"manada/internal/config"
	"manada/internal/container"
	"manada/internal/herd"
)

// Files read what is mounted into a container; main sets them.
var Files container.Translators

func (a *app) containerCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "container",
		Short: "Run this host in a container: what the image starts",
		Long: `Run this host in a container: what the image starts. It reads the environment
of the images bitnami/postgresql-repmgr and bitnami/pgpool (REPMGR_*, PGPOOL_*,
POSTGRESQL_*, NAME_FILE too) and the mounted configuration files, names what it
does not obey, and writes this host's manada.yaml to $MANADA_CONFIG.

Started as root it gives the mounted folders to the user postgres and becomes
that user for good. It founds the herd or joins it with the secret that all its
containers share, and then goes on as manada run.` + exits(exitFailed, exitUsage),
		Example: "  manada container",
		Args:    noArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return a.container(c.Context()) },
	}
}

func (a *app) container(ctx context.Context) error {
	hostname, _ := os.Hostname()
	host, bad := container.Read(a.environ, hostname)
	if len(bad) > 0 {
		return usage("docs/containers.md has every variable", "the environment of this container is wrong:\n%w", errors.Join(bad...))
	}
	places := container.Standard()
	if d := a.getenv("MANADA_DATA_DIR"); d != "" {
		places.DataDir = d
	}
	account, err := containerAccount()
	if err != nil {
		return err
	}
	exe, err := program(account)
	if err != nil {
		return err
	}
	// As root: a volume's old database belongs to whoever ran it.
	if err := herd.NoForeignData(&config.Config{DataDir: places.DataDir}); err != nil {
		return err
	}
	if os.Geteuid() == 0 {
		if err := places.Own(host, account); err != nil {
			return err
		}
	}
	if err := become(account); err != nil {
		return err
	}
	cfg, err := a.containerConfig(host, places)
	if err != nil {
		return err
	}
	log := newLogger(a.err, cfg.Log).With("node", cfg.Node)
	e := container.Entry{Host: host, Places: places, Config: cfg, Account: account, Version: Version(), Log: log}
	if err := e.Enter(ctx); err != nil {
		return err
	}
	// What was meant for this command stays behind: passwords above all.
	env := append(quietEnv(a.environ), "HOME=/", "USER="+account.Name, "LOGNAME="+account.Name)
	err = syscall.Exec(exe, []string{exe, "run", "-c", cfg.File, "--mirror-logs"}, env)
	return fmt.Errorf("go on as manada run: %w", err)
}

func (a *app) getenv(name string) string {
	for _, e := range slices.Backward(a.environ) {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			return v
		}
	}
	return ""
}

// containerAccount is who runs everything: the image's user postgres, or
// whoever the container was started as.
func containerAccount() (config.Account, error) {
	if os.Geteuid() != 0 {
		return config.CurrentAccount(), nil
	}
	return config.LookupAccount("postgres")
}

// containerConfig writes this host's configuration and reads it back.
func (a *app) containerConfig(host *container.Host, places container.Places) (*config.Config, error) {
	text, refused, err := container.Render(host, places, Files)
	if err != nil {
		return nil, err
	}
	log := newLogger(a.err, config.Log{Level: "info"}).With("node", host.Node)
	for _, s := range append(host.Notes, refused...) {
		log.Warn(s)
	}
	file := a.getenv("MANADA_CONFIG")
	if file == "" {
		file = config.SystemFile
	}
	if err := os.WriteFile(file, text, 0o644); err != nil {
		return nil, fmt.Errorf("write this host's configuration: %w", err)
	}
	cfg, err := config.Load(file, a.environ)
	if err != nil {
		return nil, loadFailure(err)
	}
	return cfg, nil
}

// quietEnv leaves out what the original images are configured with.
func quietEnv(environ []string) []string {
	return slices.DeleteFunc(slices.Clone(environ), func(e string) bool {
		name, _, _ := strings.Cut(e, "=")
		for _, prefix := range []string{"REPMGR_", "PGPOOL_", "POSTGRESQL_", "PG", "HOME", "USER", "LOGNAME"} {
			if strings.HasPrefix(name, prefix) {
				return true
			}
		}
		return false
	})
}
