package health

import "manada/internal/cluster"

// Conditions of the configuration, of hosts and of proxies.
const (
	SettingPutBack  Code = "M-C01"
	Paused          Code = "M-C02"
	ConfigRefused   Code = "M-C03"
	SettingBeaten   Code = "M-C04"
	DiskNearlyFull  Code = "M-H01"
	CertExpiring    Code = "M-H03"
	VersionSkew     Code = "M-H04"
	DiskFull        Code = "M-H05"
	SecretsBehind   Code = "M-H06"
	SecretExposed   Code = "M-H07"
	FormerAuthority Code = "M-H08"
	PasswordKnown   Code = "M-H09"
	TooFewFiles     Code = "M-H10"
	ProxyBehindTerm Code = "M-X03"
	ConsoleHidden   Code = "M-X04"
)

var configEntries = []Entry{
	{
		Code: SettingPutBack, Severity: cluster.Info, Title: "A setting was changed by hand and put back",
		Text: "{setting} on {node} was changed by hand and put back",
		Hint: "nothing to do: the herd sets it. What may be changed:  manada config set NAME VALUE ; how commits wait: durability and want_k in manada.yaml",
		Args: []string{"setting"},
		Doc: "Settings on which the promise of no lost commit rests, such as synchronous_standby_names, belong to the agent. " +
			"A change by ALTER SYSTEM or in a file is undone and reported.",
	},
	{
		Code: Paused, Severity: cluster.Warning, Title: "The herd is paused",
		Text: "the herd is paused: no automatic failover",
		Hint: "end the maintenance:  manada resume",
		Doc: "An operator ran `manada pause`. PostgreSQL and replication go on, a standby that died is started again and " +
			"rejoins, and a primary without standbys degrades; only nobody takes over by himself. switchover and failover still do what they are told.",
	},
	{
		Code: ConfigRefused, Severity: cluster.Warning, Title: "The configuration was refused",
		Text: "{node} goes on with its old configuration: {why}",
		Hint: "check the file:  manada config check",
		Args: []string{"why"},
		Doc:  "A changed configuration file was found wrong, by us or by PostgreSQL. The last good one stays in force, also when a process starts again; the file is taken up by itself once it is mended.",
	},
	{
		Code: SettingBeaten, Severity: cluster.Warning, Title: "A setting of the agent is overridden",
		Text: "{setting} on {node} is overridden by {by}",
		Hint: "take it out there and reload PostgreSQL:  manada explain {node}",
		Args: []string{"setting", "by"},
		Doc: "PostgreSQL takes a setting on which the promise of no lost commit rests from a place that the agent cannot put " +
			"right by itself, such as the command line or a file that is read after its own.",
	},
}

var hostEntries = []Entry{
	{
		Code: DiskNearlyFull, Severity: cluster.Warning, Title: "A disk is nearly full",
		Text: "{path} on {node} has {free} left ({percent} % full)",
		Hint: "make room, or find out what keeps WAL: waiting segments, slots of lost standbys",
		Args: []string{"path", "free", "percent"},
		Doc:  "PostgreSQL stops when it cannot write WAL. Failing over to an equally full standby would not help, so it is not done for this.",
	},
	{
		Code: CertExpiring, Severity: cluster.Warning, Title: "A certificate expires soon",
		Text: "the certificate of {node} expires {when}",
		Hint: "it is renewed by itself while the store has a quorum; if not, read the log of  manada run  on {node}",
		Args: []string{"when"},
		Doc:  "Peers, store and API of the node stop talking to it once its certificate has expired.",
	},
	{
		Code: VersionSkew, Severity: cluster.Info, Title: "Nodes run different versions",
		Text: "nodes run different versions of manada: {versions}",
		Hint: "finish the upgrade; neighbouring versions work together",
		Args: []string{"versions"},
		Doc:  "Normal during a rolling upgrade.",
	},
	{
		Code: DiskFull, Severity: cluster.Warning, Title: "A disk is full",
		Text: "{path} on {node} is full ({free} left): what writes there fails",
		Hint: "make room in the file system of {path} (delete nothing below data_dir), or hand over to a node that has room:  manada switchover",
		Args: []string{"path", "free"},
		Doc: "Writes fail with 53100, and when WAL cannot be written PostgreSQL stops and a standby takes over. It is told before other " +
			"conditions of the same weight, since it is often their cause: a store that cannot write does not answer either. The state " +
			"directory, the data directory, pg_wal and every tablespace are looked at. All goes on by itself when there is room.",
	},
	{
		Code: SecretsBehind, Severity: cluster.Info, Title: "Hosts have not taken up new secrets",
		Text: "new secrets ({what}) have not been taken up by {hosts}",
		Hint: "start those hosts: they take them up by themselves; one that is gone for good:  manada node remove NAME",
		Args: []string{"what", "hosts"},
		Doc: "`manada secrets rotate` or `manada node remove` made new passwords, certificates or a new authority. A host that was off " +
			"proves itself with the key of its registered certificate when it comes back, and gets them then.",
	},
	{
		Code: SecretExposed, Severity: cluster.Warning, Title: "A removed host knows the join secret",
		Text: "{node} still has the join secret that a removed host knows; nobody joins with it",
		Hint: "put a new secret into join.secret_file (in containers: REPMGR_PASSWORD or the secret's file) of every host, and restart them one after the other",
		Doc: "The secret with which hosts join came from outside and was known to a host that was removed, so it opens nothing any more. " +
			"Joining by token works on: `manada node token`.",
	},
	{
		Code: FormerAuthority, Severity: cluster.Info, Title: "The former authority still counts for applications",
		Text: "certificates carry the word of the former authority, for applications that hold the old ca.crt",
		Hint: "give ca.crt of any host to every application, then:  manada secrets rotate ca --finish",
		Doc: "The herd's authority was replaced. Until that is finished, server certificates are believed by who holds either ca.crt, " +
			"so that no application is cut off.",
	},
	{
		Code: PasswordKnown, Severity: cluster.Warning, Title: "A removed host knows the superuser's password",
		Text: "{hosts}, removed from the herd, knew the password of {role}, which people chose",
		Hint: "change it in psql (\\password {role}), then tell the herd:  manada secrets set superuser < file",
		Args: []string{"hosts", "role"},
		Doc:  "The herd never changes a password that people chose. Every other password that the host knew is new.",
	},
	{
		Code: TooFewFiles, Severity: cluster.Warning, Title: "A proxy may not open enough files",
		Text: "the proxy of {node} may open {limit} files: enough for {clients} clients, not for the {max} of proxy.max_clients",
		Hint: "let it open {need}: LimitNOFILE={need} in the unit (systemctl edit manada), or --ulimit nofile={need} of the container, then restart the host's manada; or set proxy.max_clients to {clients}",
		Args: []string{"limit", "clients", "max", "need"},
		Doc: "Each client of a proxy is an open file. Beyond the process's hard limit (`ulimit -Hn`) clients are not answered at all. " +
			"The soft limit does not matter: the proxy raises it by itself.",
	},
}

var proxyEntries = []Entry{
	{
		Code: ProxyBehindTerm, Severity: cluster.Warning, Title: "A proxy follows an old epoch",
		Text: "proxy {node} follows epoch {epoch}, the herd is at {newest}",
		Hint: "check the network from {node} to the agents and to the store",
		Args: []string{"epoch", "newest"},
		Doc:  "The proxy has not heard of the newest term record. It cannot acknowledge anything wrong: the old primary acknowledges nothing.",
	},
	{
		Code: ConsoleHidden, Severity: cluster.Info, Title: "A database bears the name of the proxies' console",
		Text: "{databases} is a database, so that name does not lead to the proxies' console",
		Hint: "use the other name, or  manada proxy show  instead; or rename the database",
		Args: []string{"databases"},
		Doc: "The proxies' console is reached by connecting to the database manada, or pgbouncer. Where PostgreSQL has a database of " +
			"such a name, clients that name it get the database. The other name, and `manada proxy`, lead to the console all the same.",
	},
}
