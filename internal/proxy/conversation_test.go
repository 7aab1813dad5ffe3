package proxy_test

import (
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"manada/internal/proxy"
	"manada/internal/proxy/pool/rules"
	"manada/internal/proxy/session"
	"manada/test/conversation"

	"github.com/jackc/pgx/v5/pgconn"
)

var (
	rewrite = flag.Bool("rewrite", false, "write the letters that PostgreSQL answers into the corpus of conversations")
	talk    = flag.Int("conversations", 30, "how many random conversations are tried")
	seed    = flag.Uint64("seed", 1, "the first random conversation; 0: by the clock")
	every   = flag.Bool("every", false, "cut the bytes of conversations in every way")
	only    = flag.String("only", "", "a part of the names of the conversations that are played")
)

// stage is where conversations are played: PostgreSQL itself and proxies before it.
type stage struct {
	role    string
	admin   *pgconn.PgConn
	direct  conversation.Target
	allowed *conversation.Allowed
	// patience bounds one play, where it is not to have the usual.
	patience time.Duration
	greets   bool                  // it says what it likes of settings at a log-in
	may      func(sql string) bool // be said in a random conversation
}

func newStage(t *testing.T, f *fixture) *stage {
	t.Helper()
	role := f.role(t, "login password 'pw'")
	f.admin(t, "grant create on database postgres to "+role)
	allowed, err := conversation.ReadAllowed()
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{role: role, allowed: allowed, may: func(string) bool { return true },
		direct: conversation.Target{Addr: f.primary.addr(), User: role, Password: "pw", Database: "postgres"}}
	t.Cleanup(func() { s.admin.Close(context.WithoutCancel(t.Context())) })
	s.connect(t)
	return s
}

// connect sees to it that the superuser's connection is there: a play that comes to no end
// may cost it.
func (s *stage) connect(t *testing.T) {
	t.Helper()
	if s.admin != nil && !s.admin.IsClosed() {
		return
	}
	var err error
	if s.admin, err = pgconn.Connect(t.Context(), superuser(s.direct.Addr)); err != nil {
		t.Fatal(err)
	}
}

// at is the stage's target behind another address.
func (s *stage) at(addr string) conversation.Target {
	t := s.direct
	t.Addr = addr
	return t
}

// play makes the schema and plays c there.
func (s *stage) play(t *testing.T, to conversation.Target, schema string, cut conversation.Cut, c *conversation.Conversation, r *rand.Rand) *conversation.Transcript {
	t.Helper()
	got, err := s.try(t, to, schema, cut, c, r)
	if err != nil {
		t.Errorf("%v\n%s", err, tail(got))
	}
	return got
}

// try plays as play does; that it came to no end is the caller's to judge.
func (s *stage) try(t *testing.T, to conversation.Target, schema string, cut conversation.Cut, c *conversation.Conversation, r *rand.Rand) (*conversation.Transcript, error) {
	t.Helper()
	s.connect(t)
	if err := conversation.Prepare(t.Context(), s.admin, schema, s.role); err != nil {
		t.Fatal(err)
	}
	p := &conversation.Player{Target: to, Direct: to == s.direct, Admin: s.admin, Schema: schema, Cut: cut, Random: r, Patience: s.patience}
	return p.Play(t.Context(), c)
}

func tail(t *conversation.Transcript) string {
	var b strings.Builder
	for i, l := range t.Lines {
		fmt.Fprintf(&b, "client %d: %s\n", i+1, strings.Join(l[max(0, len(l)-8):], "\n\t"))
	}
	return b.String()
}

// random is from the flag's seed, or from the clock.
func random(t *testing.T) *rand.Rand {
	t.Helper()
	n := *seed
	if n == 0 {
		n = uint64(time.Now().UnixNano())
	}
	t.Logf("-seed %d", n)
	return rand.New(rand.NewPCG(n, 1))
}

// direct is what PostgreSQL itself answers to the corpus, once for all tests.
var direct = map[string]*conversation.Transcript{}

func (s *stage) want(t *testing.T, c *conversation.Conversation) *conversation.Transcript {
	t.Helper()
	if direct[c.Name] == nil {
		direct[c.Name] = s.play(t, s.direct, "conv_d", conversation.AsWritten, c, nil)
	}
	return direct[c.Name]
}

// cuts are the ways of writing that are tried besides the plain one: one of them
// for each of so many conversations, by chance, or all for all.
func cuts(r *rand.Rand, of int) []conversation.Cut {
	all := []conversation.Cut{conversation.Whole, conversation.Bytes, conversation.Pieces}
	if *every {
		return all
	}
	if r.IntN(of) > 0 {
		return nil
	}
	return all[r.IntN(len(all)):][:1]
}

// each runs f for every conversation of the corpus.
func each(t *testing.T, f func(*testing.T, *conversation.Conversation)) []*conversation.Conversation {
	t.Helper()
	all, err := conversation.Corpus()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range all {
		if strings.Contains(c.Name, *only) {
			t.Run(c.Name, func(t *testing.T) { f(t, c) })
		}
	}
	return all
}

// PostgreSQL itself says what the corpus says that it does, however the bytes
// are cut.
func TestConversationsDirect(t *testing.T) {
	s := newStage(t, start(t, unsplit))
	came := map[*conversation.Conversation]*conversation.Transcript{}
	r := random(t)
	all := each(t, func(t *testing.T, c *conversation.Conversation) {
		came[c] = s.want(t, c)
		if wrong := c.Wrong(came[c]); wrong != "" && !*rewrite {
			t.Error(wrong)
		}
		for _, cut := range cuts(r, 4) {
			if d := s.allowed.Differences(c, came[c], s.play(t, s.direct, "conv_d", cut, c, r)); d != "" {
				t.Errorf("cut %d:\n%s", cut, d)
			}
		}
	})
	if *rewrite {
		if err := conversation.Rewrite("../../test/conversation", all, came); err != nil {
			t.Fatal(err)
		}
	}
}

// modes are the ways in which the proxy may stand between.
var modes = map[string]func(*proxy.Config){"session": poolOf(rules.Session, 0), "split": nil, "auto": poolOf(rules.Auto, 4)}

// poolOf is a proxy whose clients share so many servers.
func poolOf(mode rules.Mode, size int) func(*proxy.Config) {
	return func(c *proxy.Config) {
		c.Split = false
		c.Pool.Default.Mode, c.Pool.Default.Size = mode, size
	}
}

// A client of the proxy gets what a client of PostgreSQL gets, message by
// message, however its bytes arrive.
func TestConversations(t *testing.T) {
	known, err := conversation.ReadKnown()
	if err != nil {
		t.Fatal(err)
	}
	for mode, change := range modes {
		t.Run(mode, func(t *testing.T) {
			f := start(t, change)
			s := newStage(t, f)
			to := s.at(f.Addr(session.ReadWrite).String())
			r := random(t)
			each(t, func(t *testing.T, c *conversation.Conversation) {
				why, always := known.Why(mode, c.Name)
				s.want(t, c)
				if s.patience = 0; why != "" {
					s.patience = brief // it may wait for an end that does not come
				}
				d := s.differences(t, secured(c, to, r), c, r)
				switch {
				case d != "" && why == "":
					t.Error(d)
				case d == "" && why != "" && always && mode == "session":
					t.Errorf("passes, so it must not stand in corpus/known: %s", why)
				case d != "":
					t.Logf("known: %s\n%s", why, d)
				}
			})
		})
	}
}

// secured is the target over TLS, half of the time. What a first packet does is looked
// at without it.
func secured(c *conversation.Conversation, to conversation.Target, r *rand.Rand) conversation.Target {
	dials := slices.ContainsFunc(c.Steps, func(s conversation.Step) bool { return s.Kind == conversation.Dial })
	if !dials && r.IntN(2) == 0 {
		to.TLS = &tls.Config{InsecureSkipVerify: true}
	}
	return to
}

// differences plays c through the proxy as it is written and cut otherwise.
func (s *stage) differences(t *testing.T, to conversation.Target, c *conversation.Conversation, r *rand.Rand) string {
	t.Helper()
	want := s.want(t, c)
	for _, cut := range append([]conversation.Cut{conversation.AsWritten}, cuts(r, 2)...) {
		got, err := s.try(t, to, "conv_p", cut, c, r)
		if d := s.allowed.Differences(c, want, got); d != "" || err != nil {
			return fmt.Sprintf("cut %d: %v\n%s", cut, err, d)
		}
	}
	return ""
}

// The same of random conversations, two clients at a time: with servers of their
// own, with servers that they share, and with one for both.
func TestRandomConversations(t *testing.T) {
	for mode, change := range map[string]func(*proxy.Config){"session": poolOf(rules.Session, 0), "auto": poolOf(rules.Auto, 2), "auto-one": poolOf(rules.Auto, 1)} {
		t.Run(mode, func(t *testing.T) {
			f := start(t, change)
			s := newStage(t, f)
			first := random(t).Uint64() >> 1
			if *talk == 1 {
				first = *seed
			}
			to := s.at(f.Addr(session.ReadWrite).String())
			for i := range uint64(*talk) {
				s.pair(t, to, first+i)
				if t.Failed() {
					t.Fatalf("go test ./internal/proxy -run 'TestRandomConversations/%s' -seed %d -conversations 1", mode, first+i)
				}
			}
		})
	}
}

// pair plays two conversations to PostgreSQL, then both at once to the proxy.
func (s *stage) pair(t *testing.T, to conversation.Target, seed uint64) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 1))
	var want, got [2]*conversation.Transcript
	var c [2]*conversation.Conversation
	for i := range c {
		c[i] = conversation.RandomOf(fmt.Sprintf("random %d, client %d", seed, i+1), r, s.may)
		want[i] = s.play(t, s.direct, fmt.Sprintf("conv_%d", i), conversation.AsWritten, c[i], r)
		if err := conversation.Prepare(t.Context(), s.admin, fmt.Sprintf("conv_%d", i), s.role); err != nil {
			t.Fatal(err)
		}
	}
	var both sync.WaitGroup
	for i := range c {
		p := &conversation.Player{Target: secured(c[i], to, r), Schema: fmt.Sprintf("conv_%d", i), Random: rand.New(rand.NewPCG(seed, uint64(i))), Cut: conversation.Cut(r.IntN(4))}
		both.Go(func() {
			var err error
			if got[i], err = p.Play(t.Context(), c[i]); err != nil {
				t.Error(err)
			}
		})
	}
	both.Wait()
	for i := range c {
		d := s.allowed.Differences(c[i], want[i], got[i])
		if d != "" {
			t.Errorf("%s\n%s", d, c[i])
		}
	}
}

// What a broken client gets is what PostgreSQL answers it, up to where one of them
// gives up, and others go on.
func TestGarbledConversations(t *testing.T) {
	f := start(t, unsplit)
	s := newStage(t, f)
	first := random(t).Uint64() >> 1
	if *talk == 1 {
		first = *seed
	}
	to := s.at(f.Addr(session.ReadWrite).String())
	for i := range uint64(*talk) {
		if d := s.garbled(t, to, first+i); d != "" {
			t.Fatalf("%s\ngo test ./internal/proxy -run TestGarbledConversations -seed %d -conversations 1", d, first+i)
		}
	}
	c := conversation.Random("somebody else", random(t))
	if d := s.differences(t, to, c, random(t)); d != "" {
		t.Errorf("another client notices: %s", d)
	}
}

func (s *stage) garbled(t *testing.T, to conversation.Target, seed uint64) string {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 2))
	c := conversation.Random(fmt.Sprintf("garbled %d", seed), r)
	var came [2]*conversation.Transcript
	var b []byte
	last := ""
	for i, target := range []conversation.Target{s.direct, to} {
		if err := conversation.Prepare(t.Context(), s.admin, "conv_g", s.role); err != nil {
			t.Fatal(err)
		}
		p := &conversation.Player{Target: target, Direct: true, Schema: "conv_g"} // the same bytes for both
		if b == nil {
			whole, err := p.Bytes(c)
			if err != nil {
				t.Fatal(err)
			}
			b = conversation.Garble(whole, r)
		}
		got, err := p.PlayBytes(t.Context(), b)
		if err != nil {
			return fmt.Sprintf("target %d: %v\n%s\n%q", i, err, tail(got), b)
		}
		last = tail(got)
		came[i] = got
	}
	if d := s.allowed.Broken(c, b, came[0], came[1]); d != "" {
		return fmt.Sprintf("%s\nthe proxy's last words:\n%s\n%q", d, last, b)
	}
	return ""
}
