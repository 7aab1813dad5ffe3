package peer

import (
	"net/http"
	"sync"
)

// DrainPath is where a proxy tells the leader's agent of its part in a drain: the
// one POST that the certificate of a host with nothing but a proxy may make.
const DrainPath = "/v1/drain"

// proxies are those that listen to this host's beats now.
type proxies struct {
	mu    sync.Mutex
	boots map[string]listening
}

type listening struct {
	node    string
	streams int // more than one for a moment when one was replaced
}

// open notes a stream; what it returns ends it.
func (p *proxies) open(r *http.Request, boot string) (done func()) {
	who, _ := CallerOf(r.Context())
	p.add(boot, who.Node, 1)
	return func() { p.add(boot, who.Node, -1) }
}

func (p *proxies) add(boot, node string, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.boots == nil {
		p.boots = map[string]listening{}
	}
	l := listening{node, p.boots[boot].streams + n}
	if l.streams == 0 {
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
		out[boot] = l.node
	}
	return out
}
