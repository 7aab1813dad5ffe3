package cli

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"manada/internal/config"
	"manada/internal/supervisor"
)

func (a *app) reloadCmd() *cobra.Command {
	c := &cobra.Command{
		Use:   "reload",
		Short: "Put a changed configuration of this host into effect",
		Long: `Put a changed configuration of this host into effect, or of every host of a herd
made by manada up: the file is judged, by PostgreSQL, too; if it is right the
agent starts again with it, PostgreSQL reloads its own, and the proxy takes it
while its clients stay connected. What counts only after a restart of the host
is named. A file with mistakes is refused and the old contents stay in use.` + exits(exitFailed, exitUsage),
		Example: "  manada reload\n  manada reload -c /etc/manada/manada.yaml",
		Args:    noArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return a.reload(c.Context()) },
	}
	a.outputFlag(c)
	return c
}

// reloadResult is what became of one host.
type reloadResult struct {
	Node    string   `json:"node"`
	Changed []string `json:"changed"` // keys
	Restart []string `json:"restart"` // those of them that need one
}

func (a *app) reload(ctx context.Context) error {
	place, err := a.find()
	if err != nil {
		return err
	}
	if len(place.Files) == 0 {
		return config.ErrNoHerd
	}
	var all []reloadResult
	for _, file := range place.Files {
		r, err := a.reloadHost(ctx, file)
		if err != nil {
			return err
		}
		all = append(all, r)
		if a.output == "json" {
			continue
		}
		a.print("%s: reloaded, %d %s changed", r.Node, len(r.Changed), plural(len(r.Changed), "key", "keys"))
		if len(r.Restart) > 0 {
			a.say("%s: counts only after a restart of the host: %s", r.Node, strings.Join(r.Restart, ", "))
		}
	}
	if a.output == "json" {
		return json.NewEncoder(a.out).Encode(map[string]any{"schema": 1, "hosts": all})
	}
	return nil
}

func (a *app) reloadHost(ctx context.Context, file string) (r reloadResult, err error) {
	now, err := config.Load(file, a.environ)
	if err != nil {
		return r, loadFailure(err)
	}
	r = reloadResult{Node: now.Node, Changed: []string{}, Restart: []string{}}
	was, err := config.LoadAccepted(file, now.AcceptedFile(), a.environ)
	if err != nil {
		return r, fail(exitFailed, "is the host running?  manada status", "%s: %w", now.Node, err)
	}
	if _, err := supervisor.Ask(ctx, now.ControlSocket(), "reload"); err != nil {
		return r, fail(exitFailed, "manada config check  shows every mistake; manada status  whether the host runs", "%s: %w", now.Node, err)
	}
	r.Changed = config.Changes(was, now)
	for _, key := range r.Changed {
		if slices.ContainsFunc(now.Roles, func(role string) bool { return config.OnlyAtStart(config.Role(role), key) }) {
			r.Restart = append(r.Restart, key)
		}
	}
	return r, nil
}
