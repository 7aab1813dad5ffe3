package intruder

import (
	"crypto/rand"
	"net"
	"sync"
	"time"

	"manada/internal/config"
)

// noise: random bytes and connections that say nothing, on every port. Nothing
// dies, and the herd stays OK all the time.
func (s *site) noise() {
	ports := map[string][]func(*config.Ports) int{
		"master": {peerPort, clientPort, storePeerPort, httpPort, pgPort},
		"backup": {peerPort, clientPort, storePeerPort, httpPort, backupPort},
		"proxy":  {peerPort, sqlPort, proxyPort, func(p *config.Ports) int { return p.ReadOnly }},
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var mu sync.Mutex
	calls := 0
	for host, of := range ports {
		for _, port := range of {
			addr := s.at(host, port)
			wg.Go(func() {
				n := babble(addr, stop)
				mu.Lock()
				calls += n
				mu.Unlock()
			})
		}
	}
	samples, bad := 0, 0
	for end := time.Now().Add(8 * time.Second); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		st, err := s.Status(s.ctx)
		samples++
		if err != nil || st.Health != "ok" {
			bad++
			s.Logf("not OK under noise: %v %v %v", st.Health, st.Conditions, err)
		}
	}
	close(stop)
	wg.Wait()
	s.Logf("%d connections; %d of %d samples not OK", calls, bad, samples)
	if bad > 0 {
		s.Errorf("%d of %d samples were not OK", bad, samples)
	}
}

// babble opens connections to a port until stop: most say nothing and stay,
// every fourth says random bytes.
func babble(addr string, stop chan struct{}) (n int) {
	var open []net.Conn
	defer func() {
		for _, c := range open {
			_ = c.Close()
		}
	}()
	for {
		select {
		case <-stop:
			return n
		case <-time.After(20 * time.Millisecond):
		}
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err != nil {
			continue
		}
		n++
		if n%4 == 0 {
			b := make([]byte, 200)
			rand.Read(b)
			_, _ = c.Write(b)
		}
		if open = append(open, c); len(open) > 100 {
			_ = open[0].Close()
			open = open[1:]
		}
	}
}
