package e2e

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"manada/internal/cluster"
	"manada/test/trust"
)

// Strangers who open as many streams of events as they can, and as many log-ins
// that never go on, cost the herd nothing: under load it stays well, nobody
// takes over, and the streams that are open get the events.
func TestTrustStrangersDegradeNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a whole herd")
	}
	e := shared(t, 3*time.Minute)
	before := e.healthy()
	l := e.write()
	lasts := time.Duration(trust.Runs(10, 60)) * time.Second
	ctx, cancel := context.WithTimeout(e.ctx, lasts)
	defer cancel()
	var wg sync.WaitGroup
	var streams, refused, silent atomic.Int64
	http := fmt.Sprintf("127.0.0.1:%d", e.Port(before.Primary, "http"))
	sql := fmt.Sprintf("127.0.0.1:%d", e.Port("proxy", "sql"))
	for range 1000 {
		wg.Go(func() {
			for ctx.Err() == nil {
				switch stream(ctx, http) {
				case "200":
					streams.Add(1)
				case "503":
					refused.Add(1)
				}
				sleep(ctx, time.Second)
			}
		})
		wg.Go(func() {
			for ctx.Err() == nil {
				stall(ctx, sql, &silent)
				sleep(ctx, time.Second)
			}
		})
	}
	bad, samples := 0, 0
	for ctx.Err() == nil {
		s, err := e.Status(ctx)
		if ctx.Err() != nil {
			break
		}
		if samples++; err != nil || s.Health == cluster.HealthDown || len(newIn(s, before)) > 0 {
			bad++
			t.Errorf("sample %d: %s %v, %v", samples, s.Health, newIn(s, before), err)
		}
		sleep(ctx, 300*time.Millisecond)
	}
	cancel()
	wg.Wait()
	l.end("strangers at 8008 and 5431", bound)
	if s := e.healthy(); s.Epoch != before.Epoch {
		t.Errorf("epoch %d became %d", before.Epoch, s.Epoch)
	}
	if streams.Load() == 0 || refused.Load() == 0 || silent.Load() < 900 {
		t.Errorf("%d streams, %d refused, %d silent log-ins: nothing was tried", streams.Load(), refused.Load(), silent.Load())
	}
	t.Logf("%s: %d samples, %d not ok; %d streams were open, %d refused, %d silent log-ins", lasts, samples, bad, streams.Load(), refused.Load(), silent.Load())
}

// newIn are the conditions that degrade a herd and did not before.
func newIn(now, before cluster.Status) (out []cluster.Condition) {
	for _, c := range now.Conditions {
		if c.Severity != cluster.Info && !slices.ContainsFunc(before.Conditions, func(o cluster.Condition) bool { return o.Code == c.Code }) {
			out = append(out, c)
		}
	}
	return out
}

// stream opens a stream of events and stays on it until ctx ends; it returns the
// answer's code.
func stream(ctx context.Context, addr string) string {
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return ""
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })()
	fmt.Fprintf(c, "GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
	r := bufio.NewReader(c)
	line, err := r.ReadString('\n')
	f := strings.Fields(line)
	if err != nil || len(f) < 2 {
		return ""
	}
	for f[1] == "200" {
		if _, err := r.ReadString('\n'); err != nil {
			break
		}
	}
	return f[1]
}

// stall begins a log-in and does not go on with it, for as long as it is let.
func stall(ctx context.Context, addr string, count *atomic.Int64) {
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })()
	body := "\x00\x03\x00\x00user\x00postgres\x00database\x00postgres\x00\x00"
	c.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(body)+4)), body...))
	buf := make([]byte, 512)
	for n := 0; ; n++ {
		if _, err := c.Read(buf); err != nil {
			return
		}
		if n == 0 {
			count.Add(1)
		}
	}
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
