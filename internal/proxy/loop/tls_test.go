package loop

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"os/exec"
	"runtime"
	"sync"
	"testing"
	"time"

	"manada/internal/proxy/conv"
	"manada/internal/proxy/tlsmem"
)

// certificate is made once.
var makeCertificate = sync.OnceValues(func() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
})

func certificate(t testing.TB) tls.Certificate {
	t.Helper()
	c, err := makeCertificate()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// OpenSSL changes its keys in the middle, and wants ours changed.
func TestOpenSSL(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("no openssl")
	}
	for _, version := range []string{"-tls1_2", "-tls1_3"} {
		t.Run(version, func(t *testing.T) {
			g, _ := start(t, 1)
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			cmd := exec.CommandContext(t.Context(), "openssl", "s_client", "-connect", l.Addr().String(), "-brief", version)
			in, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			cmd.Stderr = cmd.Stdout
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer cmd.Wait()
			defer cmd.Process.Kill()
			conn, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			near := tlsmem.Server(conn, tlsmem.Prepare(&tls.Config{Certificates: []tls.Certificate{certificate(t)}}), nil)
			if err := near.Handshake(); err != nil {
				t.Fatal(err)
			}
			up, far := pair(t)
			go echo(far)
			o := newOwner()
			g.Serve(Arrival{Socket: take(t, near), Conv: lines{}, Owner: o, Main: &Server{Socket: take(t, up), Link: &conv.Link{}}})
			from := bufio.NewReader(out)
			say := func(s, want string) {
				t.Helper()
				in.Write([]byte(s + "\n"))
				for got := ""; got != want+"\n"; {
					var err error
					if got, err = from.ReadString('\n'); err != nil {
						t.Fatalf("said %q, got %q, %v", s, got, err)
					}
				}
			}
			say("one", "one")
			if version == "-tls1_3" {
				for range 3 {
					say("K", "KEYUPDATE") // changes its key, and asks for ours to be changed
					say("behind K", "behind K")
					say("k", "KEYUPDATE") // changes its own
					say("behind k", "behind k")
				}
			}
			say("two", "two")
			in.Close()
			<-o.ended
		})
	}
}

// lines passes everything on.
type lines struct{}

func (lines) Runs() conv.Side { return conv.Client }
func (lines) Busy() conv.Busy { return conv.Quiet }

func (lines) Step(ev conv.Event, fx *conv.Effects) int {
	switch ev.Kind {
	case conv.Bytes:
		to := conv.Client
		if ev.Side == conv.Client {
			to = conv.Main
		}
		fx.List = append(fx.List, conv.Effect{Kind: conv.Send, Side: to, B: ev.Bytes})
	case conv.Gone, conv.Kill:
		fx.List = append(fx.List, conv.Effect{Kind: conv.End})
	}
	return len(ev.Bytes)
}

// TestIdleClients: what a client costs that has asked once and waits, without its
// conversation and the kernel's share.
func TestIdleClients(t *testing.T) {
	for _, c := range []struct {
		name    string
		version uint16
		n, most int
	}{{"plain", plain, 1000, 1 << 10}, {"TLS", tls.VersionTLS13, 300, 15 << 10}} {
		t.Run(c.name, func(t *testing.T) {
			g, _ := start(t, 1)
			msg := frame('Q', []byte("select 1"))
			ours, theirs := make([]net.Conn, c.n), make([]net.Conn, c.n)
			for i := range ours {
				ours[i], theirs[i] = pair(t)
			}
			before := heap()
			for i, near := range ours {
				far := theirs[i]
				if c.version != plain {
					near, far = secured(t, near, far, c.version)
				}
				g.Serve(Arrival{Socket: take(t, near), Conv: back{}, Owner: forgetful{}})
				far.Write(msg)
				expect(t, far, msg)
				ours[i] = nil
			}
			t.Logf("%d bytes", (heap()-before)/c.n)
			if got := (heap() - before) / c.n; got > c.most {
				t.Errorf("an idle client costs %d bytes, want at most %d", got, c.most)
			}
			runtime.KeepAlive(theirs)
		})
	}
}

// back answers by itself, and forgetful remembers nothing: both cost nothing.
type back struct{}

func (back) Runs() conv.Side { return conv.Client }
func (back) Busy() conv.Busy { return conv.Quiet }

func (back) Step(ev conv.Event, fx *conv.Effects) int {
	switch ev.Kind {
	case conv.Bytes:
		fx.List = append(fx.List, conv.Effect{Kind: conv.Send, Side: conv.Client, B: ev.Bytes})
	case conv.Gone, conv.Kill:
		fx.List = append(fx.List, conv.Effect{Kind: conv.End})
	}
	return len(ev.Bytes)
}

type forgetful struct{ Owner }

func (forgetful) Ended() {}

func (forgetful) AtHand(*Client) *Server { return nil }

func heap() int {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}
