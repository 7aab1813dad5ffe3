package proxy

import (
	"math"
	"syscall"
)

// otherFiles are what a proxy opens beside its clients: connections to PostgreSQL,
// which max_connections bounds, to agents, logs.
const otherFiles = 1000

// FilesFor is how many files a proxy may have to open for so many clients. Each has a
// second one for the moment in which a loop takes it over.
func FilesFor(clients int) int { return clients + 2*spareClients + otherFiles }

// Files is how many files this process, or one that it starts, may open. The soft limit
// is no limit: Go's runtime raises it to the hard one when a program starts.
func Files() int {
	var r syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r) != nil || r.Max > math.MaxInt32 {
		return math.MaxInt32
	}
	return int(r.Max)
}

// ClientsWithin is how many clients a proxy holds that may open so many files.
func ClientsWithin(files int) int { return max(files-FilesFor(0), 0) }

// warnFiles says when the limit of open files is below what the clients need.
func (p *Proxy) warnFiles() {
	most := p.sessions.Current().MaxClients
	if limit, need := Files(), FilesFor(most); limit < need {
		p.cfg.Log.Warn("the limit of open files is too low for proxy.max_clients: raise it by LimitNOFILE= in the unit, by --ulimit nofile= of a container, or by ulimit -Hn",
			"limit", limit, "need", need, "max_clients", most, "holds", ClientsWithin(limit))
	}
}
