package cli

import "github.com/spf13/cobra"

func (a *app) addCommands(root *cobra.Command) {
	add(root, "herd", a.upCmd(), a.downCmd(), a.statusCmd(), a.explainCmd(), a.historyCmd(), a.uriCmd(),
		a.switchoverCmd(), a.failoverCmd(), a.failbackCmd(), a.pauseCmd(), a.resumeCmd(), a.reinitCmd(), a.proxyCmd())
	add(root, "backup", a.backupCmd(), a.backupsCmd(), a.verifyCmd(), a.restoreCmd())
	add(root, "host", a.runCmd(), a.initCmd(), a.joinCmd(), a.nodeCmd(), a.secretsCmd(), a.configCmd(), a.reloadCmd(), a.healthCmd(), a.containerCmd())
	add(root, "other", a.versionCmd())
	root.AddCommand(a.procCommands()...)
}
