package health

import "manada/internal/cluster"

// Conditions of roles and replication.
const (
	NoPrimary           Code = "M-R01"
	PrimaryUnreachable  Code = "M-R02"
	EpochNotOpen        Code = "M-R03"
	CommitsAlone        Code = "M-R04"
	StandbyNotStreaming Code = "M-R05"
	StandbyRewinding    Code = "M-R06"
	StandbyCloning      Code = "M-R07"
	StandbyLagging      Code = "M-R08"
	NodeQuarantined     Code = "M-R09"
	NodeUnreachable     Code = "M-R10"
	AgentDown           Code = "M-R11"
	SlotLostWAL         Code = "M-R12"
	OldPrimaryRuns      Code = "M-R13"
	TwoLeaders          Code = "M-R14"
	CommitsWaiting      Code = "M-R15"
	FewerSyncThanWanted Code = "M-R16"
	TakeoverStarted     Code = "M-R17"
	NobodyAnswers       Code = "M-R18"
	LeaderSuspected     Code = "M-R19"
	ForeignDirectory    Code = "M-R20"
	Restoring           Code = "M-R21"
	RestoreFails        Code = "M-R22"
	WritesWait          Code = "M-R23"
	ReplicationTaken    Code = "M-R24"
	Impostor            Code = "M-R25"
	MembersFromAnywhere Code = "M-R26"
	LogicalSlotsIdle    Code = "M-R27"
	KeepsDiverging      Code = "M-R28"
	StoppedInOrder      Code = "M-R29"
	HandingOver         Code = "M-R30"
)

var roleEntries = []Entry{
	{
		Code: NoPrimary, Severity: cluster.Fatal, Title: "No primary",
		Text: "no primary: {why}",
		Hint: "see why nobody leads:  manada explain",
		Args: []string{"why"},
		Doc: "No node of the herd acknowledges writes. The sentence says what the last known leader does. Commits that were " +
			"acknowledged are on the members of sync that the term record names.",
	},
	{
		Code: PrimaryUnreachable, Severity: cluster.Fatal, Title: "The primary is unreachable",
		Text: "no primary: {node} is unreachable, {heard}",
		Hint: "a standby takes over by itself if it can; if none does:  manada explain",
		Args: []string{"heard"},
		Doc: "The leader of the current epoch is neither heard from its agent nor from its guardian. When enough members of sync " +
			"suspect it too, and the store has a quorum, one of them takes over within about a second; without a quorum nobody can, and " +
			"the hint names the hosts to start instead. From a single host it may also mean that only this host is cut off.",
	},
	{
		Code: EpochNotOpen, Severity: cluster.Fatal, Title: "Failover in progress: epoch won, not yet open",
		Text: "failover in progress: {node} won epoch {epoch} and is being promoted",
		Hint: "wait a few seconds; if it stays:  manada explain {node}",
		Args: []string{"epoch"},
		Doc: "The winner acknowledges nothing until its epoch is open: it promotes, writes its control row and waits until a " +
			"standby has that row. An epoch that does not open is taken over again.",
	},
	{
		Code: CommitsAlone, Severity: cluster.Warning, Title: "Degraded: commits are on the primary alone",
		Text: "{node} commits alone: no standby has its newest commits",
		Hint: "bring a standby back; until then a failover may lose commits:  manada explain {node}",
		Doc: "With `durability: quorum` a primary whose standbys are gone records that in the store and then goes on alone. No " +
			"automatic failover happens in this state. It ends by itself as soon as a standby has caught up.",
	},
	{
		Code: StandbyNotStreaming, Severity: cluster.Warning, Title: "A standby does not stream",
		Text: "{node} does not stream from {upstream}{why}",
		Hint: "see what {node} is doing:  manada explain {node}",
		Args: []string{"upstream", "why"},
		Doc: "The standby's PostgreSQL answers and receives no WAL. It fetches what it can from the archive. If it does not come " +
			"back, `manada reinit NODE` makes it anew.",
	},
	{
		Code: StandbyRewinding, Severity: cluster.Warning, Title: "A node is being rewound",
		Text: "{node} is being rewound to the primary's history{op}",
		Hint: "nothing to do; watch it with  manada status --watch",
		Args: []string{"op"},
		Doc: "A former primary, or a standby that got further than the fork, is set back by pg_rewind. Its divergent WAL is " +
			"saved first. If rewinding fails it is cloned.",
	},
	{
		Code: StandbyCloning, Severity: cluster.Warning, Title: "A node is being cloned",
		Text: "{node} is being cloned from the primary{op}",
		Hint: "nothing to do; watch it with  manada status --watch",
		Args: []string{"op"},
		Doc:  "A new node, or one whose directory cannot be rewound, is copied from the primary beside its old directory.",
	},
	{
		Code: StandbyLagging, Severity: cluster.Warning, Title: "A standby lags behind",
		Text: "{node} is {lag} behind the primary",
		Hint: "look for long queries, slow storage or a slow network on {node}:  manada explain {node}",
		Args: []string{"lag"},
		Doc:  "Its replay is further behind than the threshold. No commit is at risk, but its reads are old and its promotion would take longer.",
	},
	{
		Code: NodeQuarantined, Severity: cluster.Warning, Title: "A node is quarantined",
		Text: "{node} is quarantined: it holds commits after {from} whose loss was accepted",
		Hint: "save what you want of it, then  manada reinit {node}",
		Args: []string{"from"},
		Doc: "An operator forced a failover with --accept-data-loss. The node holds WAL past that point, perhaps the only copy of " +
			"acknowledged commits, so it is neither started as a standby nor rewound until somebody says `manada reinit`.",
	},
	{
		Code: NodeUnreachable, Severity: cluster.Warning, Title: "A node is unreachable",
		Text: "{node} is unreachable, {heard}",
		Hint: "check the host and  manada run  on it; if it is gone for good:  manada node remove {node}",
		Args: []string{"heard"},
		Doc:  "Nothing was heard of the node's agent or guardian for longer than the threshold.",
	},
	{
		Code: AgentDown, Severity: cluster.Warning, Title: "The agent is down, its guardian beats",
		Text: "the agent of {node} is down; its guardian says that PostgreSQL there is {postgres}",
		Args: []string{"postgres"},
		Hint: "the supervisor restarts it; if it does not come back, read the log of  manada run  on {node}",
		Doc: "The guardian is the parent of the postmaster and outlives its agent, for instance during an upgrade of the binary. " +
			"A dead agent is not a dead primary, but nobody acts on that node until it is back.",
	},
	{
		Code: SlotLostWAL, Severity: cluster.Warning, Title: "A standby needs WAL that the primary no longer has",
		Text: "{node} needs WAL from {lsn} on, which the primary no longer has",
		Hint: "it returns through the archive by itself; without an archive:  manada reinit {node}",
		Args: []string{"lsn"},
		Doc: "The node's replication slot was invalidated (max_slot_wal_keep_size) or removed. It restores the missing segments " +
			"from the archive and then streams again.",
	},
	{
		Code: OldPrimaryRuns, Severity: cluster.Warning, Title: "An old primary still runs",
		Text: "{node} still runs as primary of epoch {epoch}, which is over",
		Hint: "it can acknowledge nothing any more and steps down by itself; if it does not:  manada explain {node}",
		Args: []string{"epoch"},
		Doc: "The promises of its standbys keep it from acknowledging commits, whatever it believes. Clients that reach it past the " +
			"proxy can still read old data from it.",
	},
	{
		Code: TwoLeaders, Severity: cluster.Fatal, Title: "Two nodes claim to lead the same epoch",
		Text: "{nodes} both claim to lead epoch {epoch}",
		Hint: "stop the one that the record does not name ({leader} it is), keep its data directory, and report this",
		Args: []string{"nodes", "epoch", "leader"},
		Doc: "This must not happen: an epoch is won by a compare-and-swap that only one node can win. It points at a cloned host " +
			"that runs under another's data, or at a defect.",
	},
	{
		Code: CommitsWaiting, Severity: cluster.Warning, Title: "Commits wait for a standby",
		Text: "commits on {node} have waited {age} for a standby",
		Hint: "see which standby is slow:  manada status  (LAG), then  manada explain {node}",
		Args: []string{"age"},
		Doc: "Synchronous replication does its work: nothing is acknowledged that is not on k standbys. With `durability: quorum` " +
			"the primary degrades when this lasts; with `strict` writes wait until a standby is back.",
	},
	{
		Code: FewerSyncThanWanted, Severity: cluster.Warning, Title: "Fewer synchronous standbys than wanted",
		Text: "commits wait for {k} standby instead of {want}",
		Hint: "bring another standby back; the herd raises k by itself",
		Args: []string{"k", "want"},
		Doc:  "The herd survives fewer simultaneous losses than was asked for.",
	},
	{
		Code: TakeoverStarted, Severity: cluster.Info, Title: "A node promised the end of the epoch",
		Text: "{node} promised to receive nothing more of epoch {epoch}",
		Hint: "nothing to do: it takes over, or withdraws the promise",
		Args: []string{"epoch"},
		Doc:  "The first step of a takeover. Enough such promises and the old leader can acknowledge nothing, wherever it is.",
	},
	{
		Code: NobodyAnswers, Severity: cluster.Fatal, Title: "No node answers",
		Text: "no node answers",
		Hint: "is  manada run  running? Is this the right herd (-c FILE or --dir DIR)? See its logs.",
		Doc:  "Nothing was heard of any node, so nothing can be said about the herd.",
	},
	{
		Code: LeaderSuspected, Severity: cluster.Info, Title: "A node suspects the leader",
		Text: "{node} suspects the leader: {why}",
		Hint: "nothing to do: suspicion alone changes nothing",
		Args: []string{"why"},
		Doc:  "A hint, never a proof. A takeover begins when enough members of sync suspect the leader by themselves.",
	},
	{
		Code: ForeignDirectory, Severity: cluster.Warning, Title: "A data directory of another database system",
		Text: "the data directory of {node} has system identifier {found}, the herd's is {herd}: it is not touched",
		Hint: "move it away on {node}: the node is then cloned by itself",
		Args: []string{"found", "herd"},
		Doc: "What stands in the place of the node's data was made by another initdb: a wrong disk, a wrong data_dir, or another " +
			"herd's. PostgreSQL is not started there, and nothing is rewound, cloned over or removed.",
	},
	{
		Code: Restoring, Severity: cluster.Fatal, Title: "The herd is being restored",
		Text: "the herd is being restored to {target} by {node}: {phase}",
		Hint: "it goes on by itself; watch it:  manada restore --herd --resume ; or end it:  manada restore --herd --undo",
		Args: []string{"target", "phase"},
		Doc: "An operator ordered it. Nobody takes over meanwhile and no client is served: the primary has stopped, its data is " +
			"replaced by a backup's and recovered; the other nodes keep theirs, which is the way back, until the next epoch begins. " +
			"Whoever is killed goes on when it is back.",
	},
	{
		Code: RestoreFails, Severity: cluster.Fatal, Title: "A step of the restore fails",
		Text: "restoring fails on {node}: {why}",
		Hint: "mend it, and it goes on by itself; or  manada restore --herd --undo",
		Args: []string{"why"},
		Doc: "The step is tried again every second. A target that recovery cannot reach fails for ever: undo the restore and choose " +
			"another.",
	},
	{
		Code: WritesWait, Severity: cluster.Fatal, Title: "Writes wait",
		Text: "writes on {node} wait: {why}",
		Hint: "bring back what is away; seen from another host it may look different:  manada status  there, and  manada explain {node}",
		Args: []string{"why"},
		Doc: "The primary runs, and no commit is acknowledged: it must wait for standbys that are away and cannot, or (with " +
			"`durability: strict`) may not, go on without them. A primary that is cut off from the others says so while they have " +
			"another one. Its `/primary` answers 503.",
	},
	{
		Code: ReplicationTaken, Severity: cluster.Warning, Title: "REPLICATION was taken from a role",
		Text: "role {role} had REPLICATION and is not trusted with it: it was taken from it",
		Hint: "if it needs it, add to postgresql.replication on every data host  - role: {role}, from: ADDRESS  and then  ALTER ROLE {role} REPLICATION",
		Args: []string{"role"},
		Doc: "A role with REPLICATION can acknowledge commits in a standby's name, so the attribute belongs to Manada's own role and " +
			"to those that `postgresql.replication` lists. It is taken from every other role that is no superuser, before an epoch " +
			"opens and every second after, and that role's walsenders are ended. Shown for ten minutes.",
	},
	{
		Code: Impostor, Severity: cluster.Warning, Title: "Somebody bore a standby's name",
		Text: "a walsender bore the name {name}: {who}, since {since}; {acknowledged}",
		Hint: "find out who that is and take REPLICATION, or the line of postgresql.replication, from it; until a standby has that WAL do not fail over by force",
		Args: []string{"name", "who", "since", "acknowledged"},
		Doc: "PostgreSQL counts standbys by name alone. A connection that bears the name of one, under another role or from an " +
			"address that is not the node's, acknowledges commits that no standby has. The primary records that it has them alone, " +
			"so that nobody takes over without them, then ends the connection; standbys are waited for again once they have flushed " +
			"what came after. The range names the WAL whose commits were acknowledged by the impostor. " +
			"One that was gone before the primary's agent looked is read off PostgreSQL's log, which knows its role and no address. Shown for a day.",
	},
	{
		Code: MembersFromAnywhere, Severity: cluster.Info, Title: "Members may stream from other addresses than their own",
		Text: "{node} lets members stream from {from} besides their own addresses",
		Hint: "nothing to do if NAT hides the members; else remove postgresql.members_from",
		Args: []string{"from"},
		Doc: "`postgresql.members_from` widens from where the role that streams may log in. The certificate of the herd and the " +
			"password are asked for all the same.",
	},
	{
		Code: LogicalSlotsIdle, Severity: cluster.Warning, Title: "A standby keeps logical slots that nobody uses",
		Text: "logical slots on the standby {node} hold back WAL and vacuum: {slots}",
		Hint: "subscribers make theirs anew on the primary; drop those on {node}:  SELECT pg_drop_replication_slot('{slot}')",
		Args: []string{"slots", "slot"},
		Doc: "A logical replication slot stays on the node where it was made. After a switchover it is of no use there, keeps WAL, " +
			"and through hot_standby_feedback keeps vacuum on the primary from its work.",
	},
	{
		Code: KeepsDiverging, Severity: cluster.Warning, Title: "A node is rewound in vain",
		Text: "{node} cannot follow: {why}",
		Hint: "it is not tried again; make it anew with  manada reinit {node}",
		Args: []string{"why"},
		Doc: "A rewind leaves a directory on the line of the primary that it was rewound from. One that has to be rewound again in " +
			"the same epoch was started by hand as a primary, or its WAL is damaged; after three times the node is left as it is, " +
			"so that it fills neither the disk nor the network. What was divergent is in `lost-and-found` of its state directory.",
	},
	{
		Code: StoppedInOrder, Severity: cluster.Warning, Title: "A host was stopped in order",
		Text: "{node} was stopped in order {ago} ago",
		Hint: "start it again:  systemctl start manada  on {node} ; if it is gone for good:  manada node remove {node}",
		Args: []string{"ago"},
		Doc:  "The last that was heard of the host is that somebody stops it: no accident, and nothing is lost, but what it did for the herd is not done meanwhile.",
	},
	{
		Code: HandingOver, Severity: cluster.Info, Title: "A switchover is under way",
		Text: "{what}",
		Hint: "nothing to do; it goes on by itself, or is given up and says why:  manada history",
		Args: []string{"what"},
		Doc: "The primary is about to hand over to NODE. First everything goes on while it waits for old transactions (`switchover.soft`, `switchover.for`); " +
			"then proxies hold what is new until those that are open have ended, for no longer than `switchover.hold`. " +
			"The text says since when, and who is waited for: proxies that have not answered, or transactions.",
	},
}
