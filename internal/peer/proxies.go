package peer

import (
	"cmp"
	"net/http"
	"slices"
	"sync"

	"manada/internal/pki"
)

// proxies are those that listen to this host's beats now.
type proxies struct {
	mu    sync.Mutex
	boots map[string]listening
}

type listening struct {
	who     pki.Name
	addr    string    // where it is asked; "" of a release before
	serves  [2]string // ports for SQL, as ListeningProxy has them
	streams int       // more than one for a moment when one was replaced
}

// open notes a stream; what it returns ends it.
func (p *proxies) open(r *http.Request, boot string) (done func()) {
	who, _ := CallerOf(r.Context())
	l := listening{who: who, addr: r.Header.Get(proxyAddrHeader), serves: [2]string{r.Header.Get(proxySQLHeader), r.Header.Get(proxyReadOnlyHeader)}}
	p.add(boot, l, 1)
	return func() { p.add(boot, l, -1) }
}

func (p *proxies) add(boot string, l listening, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.boots == nil {
		p.boots = map[string]listening{}
	}
	if l.streams = p.boots[boot].streams + n; l.streams == 0 {
		delete(p.boots, boot)
		return
	}
	p.boots[boot] = l
}

// Proxies are the proxies that listen to this host's beats at this moment, so
// that what it says reaches them: the host of each by the id of its process
// (Config.Proxy). A proxy of a release before this one is not among them.
func (s *Server) Proxies() map[string]string {
	s.proxies.mu.Lock()
	defer s.proxies.mu.Unlock()
	out := make(map[string]string, len(s.proxies.boots))
	for boot, l := range s.proxies.boots {
		out[boot] = l.who.Node
	}
	return out
}

// ListeningProxy is a proxy as GET /v1/proxies tells of it. Addr is what it says of
// itself: whoever calls it sees by its certificate who answers.
type ListeningProxy struct {
	Node string `json:"node"`
	Kind string `json:"kind"` // of its host
	Addr string `json:"addr"`
	// SQL and ReadOnly are where applications reach it, as it says; "": it did not say.
	SQL      string `json:"sql"`
	ReadOnly string `json:"read_only"`
}

// listening are the proxies that listen and say where they are reached, one for each host.
func (s *Server) listening() []ListeningProxy {
	s.proxies.mu.Lock()
	defer s.proxies.mu.Unlock()
	out := []ListeningProxy{}
	for _, l := range s.proxies.boots {
		if l.addr != "" || l.serves[0] != "" {
			out = append(out, ListeningProxy{l.who.Node, l.who.Kind, l.addr, l.serves[0], l.serves[1]})
		}
	}
	slices.SortFunc(out, func(a, b ListeningProxy) int { return cmp.Compare(a.Node, b.Node) })
	return slices.CompactFunc(out, func(a, b ListeningProxy) bool { return a.Node == b.Node })
}
