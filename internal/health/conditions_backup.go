package health

import "manada/internal/cluster"

// Conditions of backups and of the archive.
const (
	ArchiveFailing    Code = "M-B01"
	SegmentsWaiting   Code = "M-B02"
	NoBackup          Code = "M-B03"
	BackupOld         Code = "M-B04"
	BackupFailed      Code = "M-B05"
	RestoreTestFailed Code = "M-B06"
	RepoUnreachable   Code = "M-B07"
	ArchiveGap        Code = "M-B08"
	BackupMissed      Code = "M-B09"
	BackupDamaged     Code = "M-B10"
	NoRepository      Code = "M-B11"
	BackupsOff        Code = "M-B12"
	BackupsLost       Code = "M-B13"
	RepoFull          Code = "M-B14"
	ArchiveOther      Code = "M-B15"
	OldArchiveGap     Code = "M-B16"
)

var backupEntries = []Entry{
	{
		Code: ArchiveFailing, Severity: cluster.Warning, Title: "Archiving fails",
		Text: "archiving fails: {why}",
		Hint: "until it works WAL fills the primary's disk; see what archiving says:  manada explain",
		Args: []string{"why"},
		Doc:  "PostgreSQL keeps every segment until it is archived. Restores end at the last archived segment.",
	},
	{
		Code: SegmentsWaiting, Severity: cluster.Warning, Title: "WAL segments wait to be archived",
		Text: "{count} WAL segments wait to be archived{oldest}",
		Hint: "the repository is too slow or does not answer; the log of  manada backupd  on its host tells",
		Args: []string{"count", "oldest"},
		Doc:  "More than 8 segments wait, or one for more than 20 seconds. What they hold cannot be restored if every node is lost.",
	},
	{
		Code: NoBackup, Severity: cluster.Warning, Title: "There is no backup yet",
		Text: "there is no backup yet",
		Hint: "take one:  manada backup",
		Doc: "The repository was asked and holds no backup, so nothing can be restored, not even with a complete archive. Where it " +
			"cannot be asked, M-B07 is said instead.",
	},
	{
		Code: BackupOld, Severity: cluster.Warning, Title: "The last backup is too old",
		Text: "the last backup ended {age}",
		Hint: "take one now:  manada backup ; backup.schedule makes them by themselves",
		Args: []string{"age"},
		Doc:  "No backup was completed for more than 8 days. Restores replay more and more WAL.",
	},
	{
		Code: BackupFailed, Severity: cluster.Warning, Title: "The last backup failed",
		Text: "the last backup failed: {why}",
		Hint: "try again:  manada backup ; a partly made one is resumed",
		Args: []string{"why"},
		Doc:  "Older backups and the archive are untouched.",
	},
	{
		Code: RestoreTestFailed, Severity: cluster.Warning, Title: "The restore test failed",
		Text: "the last restore test failed: {why}",
		Hint: "try it by hand into an empty folder:  manada restore --to DIR",
		Args: []string{"why"},
		Doc: "Reserved: this release makes no restore tests by itself, so nothing raises it. A backup that was never restored is a " +
			"hope: restore one into an empty folder now and then, and start PostgreSQL on it.",
	},
	{
		Code: RepoUnreachable, Severity: cluster.Warning, Title: "The repository host does not answer",
		Text: "the backup service on {node} has not answered {since}: {why}",
		Hint: "look at  manada backupd  on {node} (port 8432): its log is backupd.log",
		Args: []string{"since", "why"},
		Doc:  "What the status says of backups is the last that was known, and segments wait on the primary until it is back.",
	},
	{
		Code: ArchiveGap, Severity: cluster.Warning, Title: "The archive has a gap",
		Text: "the archive lacks {segment}: {cost}",
		Hint: "take a new backup now:  manada backup",
		Args: []string{"segment", "cost"},
		Doc: "The repository host compares the names in the archive with what the backups need, from the oldest on along the newest timeline. " +
			"After a promotion the new primary back-fills what it holds; what is missing for longer than half a minute is told. " +
			"No backup begins behind the gap, so that nothing that happened after it can be restored until there is a new backup.",
	},
	{
		Code: BackupMissed, Severity: cluster.Warning, Title: "A scheduled backup was not made",
		Text: "a scheduled backup was not made: {what}",
		Hint: "take it now:  manada backup --type TYPE  ; manada history  shows what went before",
		Args: []string{"what"},
		Doc:  "backup.schedule wanted a backup and there is none of its type, or of one that stands for it, since. One that could not begin is tried again until it can; one that failed waits for its next time.",
	},
	{
		Code: BackupDamaged, Severity: cluster.Warning, Title: "The last backup has damaged pages",
		Text: "backup {what}",
		Hint: "the backup's notes name the files: pgbackrest --stanza=STANZA info --set=LABEL ; bring them back from the clean backup (manada restore --to DIR) or by a failover, then:  manada backup --type full",
		Args: []string{"what"},
		Doc:  "The checksums of pages of the primary's data did not match when they were copied: a disk, or memory, has altered them. The backup is kept, and so are the newest backup without damage and all WAL from it on, whatever the retention says. The standbys have files of their own, which are usually not damaged. backup.checksum_page_error: false accepts it.",
	},
	{
		Code: NoRepository, Severity: cluster.Warning, Title: "There is no repository for backups",
		Text: "no host has the role repository: there are no backups, and no WAL is kept for them",
		Hint: "give a host the role repository (roles:), or set  backup.enabled: off  on every host if none are wanted",
		Doc:  "backup.enabled is auto, and no host of the herd has, or ever had, the role repository. A standby protects from the loss of a host, not from a DROP TABLE. Once there is a repository, WAL is archived from then on; after it was removed, WAL is kept until there is another.",
	},
	{
		Code: BackupsOff, Severity: cluster.Info, Title: "Backups are off",
		Text: "backups are off: backup.enabled says so",
		Hint: "set  backup.enabled: auto  on every host, and give one the role repository, to have them",
		Doc:  "Nothing is archived and nothing can be restored.",
	},
	{
		Code: BackupsLost, Severity: cluster.Warning, Title: "Backups or WAL are gone",
		Text: "the repository on {node} has lost what it had: {what}",
		Hint: "find out who removed it; bring it back from a copy, or take a new backup now:  manada backup --type full  ; if it was removed on purpose, remove  state/repository.json  in the data_dir of {node}",
		Args: []string{"what"},
		Doc: "The repository host remembers, outside of the repository, which backups and which WAL it held. No host of the herd " +
			"may delete there, and what the retention expires is forgotten, so that somebody with access to the folder, or a disk, " +
			"has removed this. A repository that is gone is not begun anew by itself.",
	},
	{
		Code: RepoFull, Severity: cluster.Warning, Title: "The repository has no room",
		Text: "the repository on {node} takes no new files: {why}",
		Hint: "make room on that volume, or expire more:  a smaller backup.retention_full on {node}, then restart manada there ; archiving goes on by itself once there is room",
		Args: []string{"why"},
		Doc: "backup.repo_reserve of the repository's volume stays free, so that whatever a host stores there, backups can still be read and " +
			"expired, and the host itself goes on. Until there is room WAL waits on the primary and fills its disk; backups fail and leave nothing behind.",
	},
	{
		Code: ArchiveOther, Severity: cluster.Warning, Title: "The archive has another file under the name of WAL",
		Text: "{node} cannot archive {file}: the archive has another file of that name",
		Hint: "if {node} has the true one, on {host}:  manada backups set-aside {file}  ; archiving then goes on by itself",
		Args: []string{"file", "host"},
		Doc: "The repository takes WAL only from the host that leads, of this cluster, with the place in WAL that its name says, and none that is " +
			"still to come. Somebody with that host's identity, or a second cluster with the same system identifier, has stored a file all the same " +
			"before the primary did; or its disk has altered the primary's WAL since. Nothing is replaced by itself, as nobody can tell the true one " +
			"by its content: an operator decides. The file that is set aside is kept in manada/set-aside of the repository, and the command says " +
			"when it was stored; manada history says who led then. Until then WAL waits on the primary, and restores end before this file.",
	},
	{
		Code: OldArchiveGap, Severity: cluster.Info, Title: "The archive had a gap",
		Text: "the archive lacks {segment}: {cost}; newer backups are behind it",
		Hint: "bring the files back from a copy of the repository, if there is one; what is missing or damaged is listed by  manada verify",
		Args: []string{"segment", "cost"},
		Doc:  "As M-B08, but a newer backup begins behind the gap: only times between the two cannot be restored to. It is told until the backups before the gap are expired.",
	},
}
