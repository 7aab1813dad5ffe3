package e2e

import "testing"

// TestHerd runs its parts in this order: the first makes the herd that the
// others break and mend, the last removes it.
func TestHerd(t *testing.T) {
	if testing.Short() {
		t.Skip("runs whole herds")
	}
	for _, part := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"FirstRunInterrupted", firstRunInterrupted},
		{"BadInput", badInput},
		{"BadHosts", badHosts},
		{"Clients", clients},
		{"FullBackup", fullBackup},
		{"RepositoryAway", repositoryAway},
		{"StatusCheckWell", statusCheckWell},
		{"PostmasterKilled", postmasterKilled},
		{"PrimaryHostKilled", primaryHostKilled},
		{"StandbyHostKilled", standbyHostKilled},
		{"PrimaryHostStopped", primaryHostStopped},
		{"StandbyHostStopped", standbyHostStopped},
		{"Switchover", switchover},
		{"SwitchoverUnnoticed", switchoverUnnoticed},
		{"PostmasterFrozen", postmasterFrozen},
		{"ProcessesKilled", processesKilled},
		{"SupervisorKilled", supervisorKilled},
		{"StoreFrozen", storeFrozen},
		{"SettingPutBack", settingPutBack},
		{"HostileOwner", hostileOwner},
		{"NewConnectionsFail", newConnectionsFail},
		{"ConnectionsTaken", connectionsTaken},
		{"Rotation", rotation},
		{"ChangedByHand", changedByHand},
		{"ClusterParameters", clusterParameters},
		{"RepmgrFace", repmgrFace},
		{"FailbackAfterStart", failbackAfterStart},
		{"ManualAndEvents", manualAndEvents},
		{"BadConfiguration", badConfiguration},
		{"ProxyOrders", proxyOrders},
		{"ProxyFromAfar", proxyFromAfar},
		{"SlotLost", slotLost},
		{"ForeignDirectory", foreignDirectory},
		{"BackupInterrupted", backupInterrupted},
		{"BackupsAfterFailover", backupsAfterFailover},
		{"RestoreEverything", restoreEverything},
		{"RestoreToTime", restoreToTime},
		{"RestoreBeforeSwitchovers", func(t *testing.T) { restoreBeforeSwitchovers(t, 0) }},
		{"RestoreKilled", restoreKilled},
		{"RestoreUndone", restoreUndone},
		{"TablespacesRestored", tablespacesRestored},
		{"RepositoryGone", repositoryGone},
		{"ArchiveGap", archiveGap},
		{"RepositoryEmptied", repositoryEmptied},
		{"DamagedPages", damagedPages},
		{"PgbackrestFace", pgbackrestFace},
		{"ScheduledBackup", scheduledBackup},
		{"PowerLoss", powerLoss},
		{"DownAndUp", downAndUp},
		{"LastPrimaryLost", lastPrimaryLost},
		{"Wipe", wipe},
	} {
		t.Run(part.name, part.run)
	}
}
