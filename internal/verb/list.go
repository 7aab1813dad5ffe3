package verb

import (
	"net/http"
	"slices"
)

func asks(name, path, sentence string) Verb {
	return Verb{Name: name, Method: http.MethodGet, Path: path, Who: Hosts, Danger: Harmless, Again: true, Sentence: sentence}
}

func does(name, path string, danger Danger, sentence string, takes ...Argument) Verb {
	return Verb{Name: name, Method: http.MethodPost, Path: path, Who: Members, Danger: danger, Arguments: takes, Sentence: sentence}
}

// again is a verb that may be asked twice.
func again(v Verb) Verb { v.Again = true; return v }

// raw is a verb whose handler reads the body itself.
func raw(v Verb, who Who) Verb { v.Raw, v.Who = true, who; return v }

// endless is a verb that bounds itself or waits for others.
func endless(v Verb) Verb { v.Within = Endless; return v }

func text(name string) Argument            { return Argument{Name: name} }
func needed(name string, is Kind) Argument { return Argument{Name: name, Is: is, Needed: true} }

var by = text("by")

// What hosts tell.
var (
	Verbs    = asks("verbs", "/v1/verbs", "tells which verbs this host answers")
	Status   = asks("status", "/v1/status", "tells how the herd is, as this host sees it")
	View     = asks("view", "/v1/view", "tells the newest beat of everybody whom this host hears")
	Beats    = endless(raw(asks("beats", "/v1/beats", "tells this host's beats as they are published"), Hosts))
	Facts    = asks("facts", "/v1/facts", "tells what a newcomer must know of the herd")
	Postgres = asks("postgres", "/v1/postgres", "tells of this host's PostgreSQL")
	Config   = asks("config", "/v1/config", "tells with what this host's PostgreSQL is configured")
	Registry = asks("registry", "/v1/registry", "tells which certificates are the herd's")
	Secrets  = asks("secrets", "/v1/secrets", "tells how far the newest secrets have come")
	Renew    = asks("renew", "/v1/renew", "signs the caller's certificate anew")
	Backup   = asks("backup", "/v1/backup", "tells of the backup that runs, or ran last, on this host")
	History  = asks("history", "/v1/history", "tells the newest events")
	Request  = asks("request", "/v1/request/{id}", "tells what became of a request")
	Proxies  = asks("proxies", "/v1/proxies", "tells which proxies hear this host, and where they are asked")
)

// What changes the herd.
var (
	Switchover = does("switchover", "/v1/switchover", Holds, "lets another node be the primary, without losing anything", roleChange...)
	Failover   = does("failover", "/v1/failover", Loses, "makes a standby the primary although the primary is gone", roleChange...)
	Reinit     = does("reinit", "/v1/reinit", Ends, "makes a standby's data directory anew", roleChange...)
	Restore    = does("restore", "/v1/restore", Loses, "restores the herd's data out of a backup", needed("order", Object), Argument{Name: "epoch", Is: Number}, by)
	Undo       = does("restore undo", "/v1/restore/undo", Loses, "ends a restore of the herd", Argument{Name: "order", Is: Object}, Argument{Name: "epoch", Is: Number}, by)
	Plan       = does("restore plan", "/v1/restore/plan", Harmless, "tells what a restore of the herd would do", text("type"), text("target"),
		Argument{Name: "exclusive", Is: Flag}, Argument{Name: "timeline", Is: Number}, text("set"), Argument{Name: "keep_old", Is: Flag})
	Pause       = again(does("pause", "/v1/pause", Harmless, "holds automatic role changes", by, text("reason"), text("at")))
	Resume      = again(does("resume", "/v1/resume", Harmless, "ends pause"))
	Token       = does("node token", "/v1/token", Harmless, "makes a token with which one host may join", text("node"), Argument{Name: "kind", Of: []string{"", "data", "witness", "proxy"}})
	Remove      = does("node remove", "/v1/node/remove", Ends, "takes a host out of the herd", needed("node", Text), Argument{Name: "force", Is: Flag})
	SetConfig   = again(does("config set", "/v1/config", Harmless, "sets a parameter of PostgreSQL for the cluster", needed("name", Text), text("value"), Argument{Name: "unset", Is: Flag}, by))
	Rotate      = does("secrets rotate", "/v1/secrets/rotate", Harmless, "makes passwords, certificates or the authority new", needed("what", List), by)
	Superuser   = again(does("secrets set superuser", "/v1/secrets/superuser", Harmless, "takes the superuser's password that was changed by hand", needed("password", Text)))
	StartBackup = does("backup now", "/v1/backup", Harmless, "starts a backup", Argument{Name: "type", Of: []string{"", "full", "diff", "incr"}},
		Argument{Name: "options", Is: Object})
	Stanza       = endless(again(does("stanza", "/v1/stanza", Harmless, "makes the repository's stanza from the primary's data directory")))
	ArchiveCheck = does("archive check", "/v1/archive-check", Harmless, "ends the primary's WAL segment, to see it archived")
)

var roleChange = []Argument{text("to"), {Name: "accept_data_loss", Is: Flag}, {Name: "old_primary_is_off", Is: Flag}, {Name: "force", Is: Flag}, by}

// What programs ask of each other.
var (
	Join        = raw(does("join", "/v1/join", Harmless, "takes a newcomer in"), Anyone)
	Refresh     = raw(does("refresh", "/v1/refresh", Harmless, "gives a host the secrets that it lacks"), Anyone)
	PushBeats   = endless(raw(does("beats push", "/v1/beats", Harmless, "takes a guardian's beats"), Members))
	Drain       = raw(does("drain", "/v1/drain", Harmless, "takes a proxy's word in a switchover"), Hosts)
	ArchivePush = local(does("archive-push", "/archive-push", Harmless, "archives a WAL segment", text("path")))
	ArchiveGet  = local(does("archive-get", "/archive-get", Harmless, "fetches one out of the archive", text("name"), text("dest")))
)

func local(v Verb) Verb { v.Who = Local; return endless(v) }

// All is the list.
var All = slices.Concat([]Verb{
	Verbs, Status, View, Beats, Facts, Postgres, Config, Registry, Secrets, Renew, Backup, History, Request, Proxies,
	Switchover, Failover, Reinit, Restore, Undo, Plan, Pause, Resume, Token, Remove, SetConfig, Rotate, Superuser, StartBackup, Stanza, ArchiveCheck,
	Join, Refresh, PushBeats, Drain, ArchivePush, ArchiveGet,
}, Proxy)
