package health

import "manada/internal/cluster"

// Conditions of PostgreSQL.
const (
	PostgresDown    Code = "M-P01"
	PostgresHung    Code = "M-P02"
	CannotCommit    Code = "M-P03"
	CommitNotSync   Code = "M-P04"
	RestartNeeded   Code = "M-P05"
	StepFails       Code = "M-P06"
	Unfurnished     Code = "M-P07"
	ConnectionsFail Code = "M-P08"
	RoomMade        Code = "M-P09"
)

var postgresEntries = []Entry{
	{
		Code: PostgresDown, Severity: cluster.Warning, Title: "PostgreSQL is down",
		Text: "PostgreSQL on {node} is {state}",
		Hint: "the agent starts it again unless that is unsafe:  manada explain {node}",
		Args: []string{"state"},
		Doc: "The host answers and its PostgreSQL does not run. A primary's PostgreSQL that ended without a clean stop never " +
			"continues its epoch: it hands over, or succeeds itself under a new one.",
	},
	{
		Code: PostgresHung, Severity: cluster.Warning, Title: "PostgreSQL hangs",
		Text: "PostgreSQL on {node} runs but does not answer",
		Hint: "look at storage and at stopped processes on {node}; then  manada explain {node}",
		Doc:  "A probe of the agent passed its deadline: stopped processes, hung storage, exhausted connections or memory.",
	},
	{
		Code: CannotCommit, Severity: cluster.Fatal, Title: "The primary cannot commit",
		Text: "{node} cannot commit: {why}",
		Hint: "a standby takes over if it can; otherwise look at storage and free space on {node}",
		Args: []string{"why"},
		Doc:  "The leader's own agent says that nothing can be committed. Its peers take that as a reason to suspect it.",
	},
	{
		Code: CommitNotSync, Severity: cluster.Warning, Title: "synchronous_commit is weakened for a role or database",
		Text: "synchronous_commit is {value} for {whom}",
		Hint: "if that is not meant:  ALTER ROLE|DATABASE NAME RESET synchronous_commit",
		Args: []string{"value", "whom"},
		Doc: "Commits of these sessions are acknowledged before a standby has them; a failover may lose them. That can be meant, " +
			"so it is said and not undone.",
	},
	{
		Code: RestartNeeded, Severity: cluster.Info, Title: "A restart is needed for changed parameters",
		Text: "{node} needs a restart of PostgreSQL for {parameters}",
		Hint: "restart standbys first, then hand over with  manada switchover  and restart the former primary",
		Args: []string{"parameters"},
		Doc:  "These parameters take effect only when PostgreSQL starts. Nothing is restarted without being asked.",
	},
	{
		Code: StepFails, Severity: cluster.Warning, Title: "A step on a node fails",
		Text: "{step} fails on {node}: {why}",
		Hint: "put right what it says; it is tried again by itself. On {node}: log/postgresql.log and log/agent.log in data_dir",
		Args: []string{"step", "why"},
		Doc: "Starting, stopping, promoting, rewinding or cloning PostgreSQL ended with an error: a port that another program " +
			"has taken, a full disk, a file that cannot be read. It goes away when the step succeeds.",
	},
	{
		Code: Unfurnished, Severity: cluster.Warning, Title: "Somebody keeps changing what the herd needs in the database",
		Text: "{what} on {node} is not as the herd needs it: {why}; perhaps by {by}",
		Hint: "stop what changes it; it is put back by itself. Set log_statement to ddl to find out who does",
		Args: []string{"what", "why", "by"},
		Doc: "Roles, passwords and rights of the herd and the schema `manada` in database `postgres` are compared every second and " +
			"put back, each three times a minute at most. Until then standbys may not be able to log in, proxies refuse clients, " +
			"or the next failover takes longer: a new primary makes what it needs before it opens.",
	},
	{
		Code: ConnectionsFail, Severity: cluster.Warning, Title: "New connections fail",
		Text: "no new connection succeeds on {node}: {why}",
		Hint: "put right what it says; when all connections are taken:  manada config set max_connections N",
		Args: []string{"why"},
		Doc: "The agent logs in every second as superuser and as `manada_monitor`, an ordinary role, and one of them has been refused " +
			"twice in a row; the sentence is PostgreSQL's. Sessions that are open go on. Typical are libraries in " +
			"`session_preload_libraries` that are not installed, and `max_connections` in use.",
	},
	{
		Code: RoomMade, Severity: cluster.Warning, Title: "Sessions were ended to make room",
		Text: "{sessions} were ended on {node} to keep connections for the herd's own roles",
		Hint: "limit the role (ALTER ROLE ... CONNECTION LIMIT n), or raise the limit:  manada config set max_connections N",
		Args: []string{"sessions"},
		Doc: "PostgreSQL 15 reserves connections for superusers only. When ordinary roles take the last five of the others the agent ends the " +
			"newest idle sessions, so that rewinding a node, backups and the log-ins of proxies go on. From PostgreSQL 16 on " +
			"`reserved_connections` does that, and nothing is ended.",
	},
}
