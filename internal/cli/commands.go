package cli

import "github.com/spf13/cobra"

func (a *app) addCommands(root *cobra.Command) {
	add(root, "host", a.configCmd())
	add(root, "other", a.versionCmd())
}
