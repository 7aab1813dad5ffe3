package rules

import (
	"strings"
	"testing"
	"time"

	"manada/internal/proxy/wire"
)

// desk is a book with one node that carries out what is decided at once, except
// where a test holds that up.
type desk struct {
	t      *testing.T
	b      *Book
	n      *Node
	now    Moment
	fails  *wire.Error // opening does
	slow   bool        // Open is left to the test
	opens  []*Server
	handed map[*Claim]*Server
	denied map[*Claim]*wire.Error
	closed int
	done   []uint64
}

// rights are those of a role that may.
func rights(stamp string) Rights {
	return Rights{Login: true, Exists: true, Allowed: true, Connect: true, RoleLimit: -1, DatabaseLimit: -1, Stamp: stamp}
}

func limited(role, database int) Rights {
	r := rights("")
	r.RoleLimit, r.DatabaseLimit = role, database
	return r
}

var anyone = rights("")

func newDesk(t *testing.T, limit int, s Settings, overrides ...string) *desk {
	t.Helper()
	cfg := Config{Default: s}
	for i := 0; i+1 < len(overrides); i += 2 {
		o, err := ParseOverride(overrides[i], overrides[i+1])
		if err != nil {
			t.Fatal(err)
		}
		cfg.Overrides = append(cfg.Overrides, o)
	}
	d := &desk{t: t, b: New(cfg, 2), handed: map[*Claim]*Server{}, denied: map[*Claim]*wire.Error{}}
	d.n = d.b.Node("a")
	d.do(d.b.SetNode(0, d.n, limit, 1, nil))
	d.do(d.b.Lead(0, d.n, "", nil))
	return d
}

func (d *desk) do(out []Decision) {
	for _, x := range out {
		switch x.Kind {
		case Open:
			d.opens = append(d.opens, x.Server)
			if !d.slow {
				d.open(x.Server)
			}
		case Close:
			d.closed++
			d.do(d.b.Closed(d.now, x.Server, nil))
		case Hand:
			d.handed[x.Claim] = x.Server
		case Deny:
			d.denied[x.Claim] = x.Err
		case Settled:
			d.done = append(d.done, x.ID)
		}
	}
}

func (d *desk) open(s *Server) {
	if d.fails != nil {
		d.do(d.b.Failed(d.now, s, d.fails, nil))
		return
	}
	d.do(d.b.Opened(d.now, s, 0, nil))
}

func (d *desk) attach(db, user string) *Account {
	d.t.Helper()
	a, err, out := d.b.Attach(d.now, db, user, anyone, nil)
	if err != nil {
		d.t.Fatal(err)
	}
	d.do(out)
	return a
}

func (d *desk) want(a *Account) *Claim {
	c := &Claim{}
	d.do(d.b.Want(d.now, c, a, nil, 0, nil))
	return c
}

func (d *desk) give(c *Claim) {
	s := d.handed[c]
	delete(d.handed, c)
	d.do(d.b.Gave(d.now, s, true, nil))
}

// wait lets time pass as a driver does.
func (d *desk) wait(t time.Duration) {
	for end := d.now + t; d.now < end; {
		d.now = min(end, max(d.b.Next(), d.now+time.Millisecond))
		if d.b.Next() <= d.now {
			d.do(d.b.Tick(d.now, nil))
		}
	}
}

func (d *desk) has(c *Claim) string {
	switch {
	case d.handed[c] != nil:
		return "server"
	case d.denied[c] != nil:
		return d.denied[c].Code + " " + d.denied[c].Message
	case c.Waiting():
		return "waits"
	}
	return "nothing"
}

func (d *desk) expect(c *Claim, want string) {
	d.t.Helper()
	if got := d.has(c); !strings.HasPrefix(got, want) {
		d.t.Errorf("got %q, want %q", got, want)
	}
}
