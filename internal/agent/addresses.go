package agent

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// addresses remembers what hosts' names stand for. The zero value is ready.
type addresses struct {
	mu    sync.Mutex
	known map[string]lookedUp
}

type lookedUp struct {
	addrs []string
	at    time.Time
}

// lookUpEvery is how long an answer is believed without being asked for again.
const lookUpEvery = time.Second

// lookUp gives the IP addresses of a host, sorted. When its name cannot be
// looked up now the last answer stands: a name server that is away must not cut
// off those who are there.
func (x *addresses) lookUp(ctx context.Context, host string) ([]string, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return []string{ip.Unmap().String()}, nil
	}
	x.mu.Lock()
	last, known := x.known[host]
	x.mu.Unlock()
	if known && time.Since(last.at) < lookUpEvery {
		return last.addrs, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil || len(found) == 0 {
		if known {
			return last.addrs, nil
		}
		return nil, fmt.Errorf("look up host %s: %w", host, err)
	}
	var addrs []string
	for _, ip := range found {
		addrs = append(addrs, ip.Unmap().String())
	}
	slices.Sort(addrs)
	addrs = slices.Compact(addrs)
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.known == nil {
		x.known = map[string]lookedUp{}
	}
	x.known[host] = lookedUp{addrs, time.Now()}
	return addrs, nil
}
