package conv

import "testing"

// trip is a transaction of pgbench and the steps that it takes.
type trip struct {
	name        string
	ask, answer string
}

var trips = []trip{
	{"simple", "Q(SELECT abalance FROM pgbench_accounts WHERE aid = 12345;)", "T D(12345678) C(SELECT 1) Z(I)"},
	{"prepared", "B(|P_0) D E S", "2 T D(12345678) C(SELECT 1) Z(I)"},
}

func (tr trip) bytes(t testing.TB) (ask, answer []byte, n int) {
	ask, err := messages(tr.ask, true)
	if err != nil {
		t.Fatal(err)
	}
	answer, err = messages(tr.answer, false)
	if err != nil {
		t.Fatal(err)
	}
	a, _ := whole(ask)
	b, _ := whole(answer)
	return ask, answer, a + b
}

func sessionWith(t testing.TB, cfg *Config) *Conv {
	c := New(cfg)
	l, _ := newTestLink(Main, nil)
	var fx Effects
	c.Step(Event{Kind: Granted, Side: Main, Link: l}, &fx)
	p, _ := messages("P(P_0|SELECT abalance FROM pgbench_accounts WHERE aid = $1;) S", true)
	c.Step(Event{Kind: Bytes, Side: Client, Bytes: p}, &fx)
	a, _ := messages("1 Z(I)", false)
	c.Step(Event{Kind: Bytes, Side: Main, Bytes: a}, &fx)
	return c
}

var sessionConfig = &Config{PoolNodes: func() Table { return Table{} }}

func BenchmarkPass(b *testing.B) {
	for _, tr := range trips {
		b.Run(tr.name, func(b *testing.B) {
			ask, answer, n := tr.bytes(b)
			c, fx := sessionWith(b, sessionConfig), Effects{}
			b.ReportAllocs()
			for b.Loop() {
				fx.Reset()
				c.Step(Event{Kind: Bytes, Side: Client, Bytes: ask}, &fx)
				fx.Reset()
				c.Step(Event{Kind: Bytes, Side: Main, Bytes: answer}, &fx)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/message")
		})
	}
}

// BenchmarkPooled is the same for clients that get a server for each transaction.
func BenchmarkPooled(b *testing.B) {
	for _, mode := range []Mode{Transaction, Auto} {
		for _, tr := range append(trips, trip{"text of 250 bytes", "Q(SELECT * FROM orders WHERE customer_id = 123456 AND status IN ('new', 'paid', 'sent') AND created_at > '2024-01-01' ORDER BY created_at DESC, id LIMIT 50 OFFSET 100 -- a comment as those of an application, which names where the query comes from)", trips[0].answer}) {
			b.Run([]string{Transaction: "transaction", Auto: "auto"}[mode]+"/"+tr.name, func(b *testing.B) {
				ask, answer, _ := tr.bytes(b)
				c, fx := New(&Config{Mode: mode}), Effects{}
				l, _ := newTestLink(Main, nil)
				p, _ := messages("P(P_0|SELECT abalance FROM pgbench_accounts WHERE aid = $1;) S", true)
				a, _ := messages("1 Z(I)", false)
				transact(c, l, p, a, &fx)
				b.ReportAllocs()
				for b.Loop() {
					transact(c, l, ask, answer, &fx)
				}
			})
		}
	}
}

// transact is one transaction of a pooled client, as a loop drives it.
func transact(c *Conv, l *Link, ask, answer []byte, fx *Effects) {
	for _, ev := range []Event{{Side: Client, Bytes: ask, Link: l}, {Side: Main, Bytes: answer}} {
		fx.Reset()
		c.Step(ev, fx)
	}
	if c.links[Main] != nil || c.over {
		panic("not given back")
	}
}

// A message that is only passed on costs no memory.
func TestPassDoesNotAllocate(t *testing.T) {
	pooled, l, fx := New(&Config{Mode: Transaction}), (*Link)(nil), &Effects{}
	l, _ = newTestLink(Main, nil)
	p, _ := messages("P(P_0|select 1) S", true)
	a, _ := messages("1 Z(I)", false)
	transact(pooled, l, p, a, fx)
	for _, tr := range trips {
		ask, answer, _ := tr.bytes(t)
		if n := testing.AllocsPerRun(100, func() { transact(pooled, l, ask, answer, fx) }); n > 0 {
			t.Errorf("pooled, %s: %.1f allocations", tr.name, n)
		}
	}
	rows := "H d(" + "*5000) d(*5000) c C(COPY 2) Z(I)"
	for _, tr := range append(trips, trip{"many", "Q(copy t to stdout)", rows}, trip{"extended", "P(|select $1|1) B D E S", "1 2 T D(1) C(SELECT 1) Z(I)"}) {
		ask, answer, _ := tr.bytes(t)
		c, fx := sessionWith(t, sessionConfig), Effects{}
		n := testing.AllocsPerRun(100, func() {
			for _, ev := range []Event{{Side: Client, Bytes: ask}, {Side: Main, Bytes: answer}} {
				fx.Reset()
				if c.Step(ev, &fx) != len(ev.Bytes) || c.over {
					t.Fatal("not taken")
				}
			}
		})
		most := 0.0
		if tr.name == "extended" {
			most = 1 // what is known of the statement
		}
		if n > most {
			t.Errorf("%s: %.1f allocations", tr.name, n)
		}
	}
}
