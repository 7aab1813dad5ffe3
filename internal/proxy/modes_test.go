package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"regexp"
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

// PgBouncer's modes give a connection to another client whatever was left in it.
var bouncers = []rules.Mode{rules.Transaction, rules.Statement}

// unlike is a line of a table of differences: in these modes, where PostgreSQL's line of
// a conversation begins so, the proxy's begins otherwise.
type unlike struct {
	text      string
	modes     []string
	name      *regexp.Regexp
	want, got string // "-": none, "*": any
	why       string
	used      bool
}

// unlikes reads testdata/poolmodes.txt, without the lines of other modes.
func unlikes(t *testing.T, mode rules.Mode) []*unlike {
	t.Helper()
	var out []*unlike
	for _, f := range rowsOf(t, "testdata/poolmodes.txt", 5) {
		u := &unlike{text: strings.Join(f, " | "), modes: strings.Fields(f[0]), want: f[2], got: f[3], why: f[4]}
		var err error
		if u.name, err = regexp.Compile("^(?:" + f[1] + ")$"); err != nil {
			t.Fatal(err)
		}
		if slices.Contains(u.modes, mode.String()) {
			out = append(out, u)
		}
	}
	return out
}

// rowsOf reads a table of so many fields, without its comments.
func rowsOf(t *testing.T, file string, fields int) (rows [][]string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		f := strings.Split(line, " | ")
		if len(f) != fields {
			t.Fatalf("%s: want %d fields: %s", file, fields, line)
		}
		rows = append(rows, f)
	}
	return rows
}

// tells says whether the line is of a difference, and marks it.
func (u *unlike) tells(d conversation.Difference) bool {
	begins := func(line, with string) bool {
		return with == "*" || line == "" && with == "-" || line != "" && strings.HasPrefix(line, with)
	}
	ok := begins(d.Want, u.want) && begins(d.Got, u.got)
	u.used = u.used || ok
	return ok
}

// A client of mode transaction or statement gets what a client of PostgreSQL gets,
// message by message, but for what testdata/poolmodes.txt names. What a conversation has
// left in a connection is no other's: they are closed in between.
func TestConversationsInModes(t *testing.T) {
	for _, mode := range bouncers {
		t.Run(mode.String(), func(t *testing.T) {
			f := start(t, poolOf(mode, 4))
			s := newStage(t, f)
			to := s.at(f.Addr(session.ReadWrite).String())
			clean := f.reconnects(t)
			list, r := unlikes(t, mode), random(t)
			each(t, func(t *testing.T, c *conversation.Conversation) {
				clean(t)
				s.isUnlike(t, secured(c, to, r), c, r, list)
			})
			for _, u := range list {
				if !u.used && *only == "" {
					t.Errorf("testdata/poolmodes.txt: not so (any more): %s", u.text)
				}
			}
		})
	}
}

// reconnects closes all shared connections, by the console.
func (f *fixture) reconnects(t *testing.T) func(*testing.T) {
	t.Helper()
	c, err := pgconn.Connect(t.Context(), fmt.Sprintf("postgres://postgres:postgres@%s/manada?sslmode=disable", f.Addr(session.ReadWrite)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(context.WithoutCancel(t.Context())) })
	return func(t *testing.T) {
		t.Helper()
		if _, err := c.Exec(t.Context(), "reconnect").ReadAll(); err != nil {
			t.Fatal(err)
		}
	}
}

// brief bounds a play that may be one to wait in vain.
const brief = 300 * time.Millisecond

// isUnlike plays c and holds it against PostgreSQL and the list. One that is not as either
// may need longer: it is played again before it is judged.
func (s *stage) isUnlike(t *testing.T, to conversation.Target, c *conversation.Conversation, r *rand.Rand, list []*unlike) {
	t.Helper()
	want, told := s.want(t, c), ""
	for _, s.patience = range []time.Duration{brief, 0} {
		got, err := s.try(t, to, "conv_p", conversation.AsWritten, c, r)
		if s.told(c, want, got, err, list) {
			s.patience = 0
			return
		}
		told = fmt.Sprintf("%v\n%s", err, s.allowed.Differences(c, want, got))
	}
	t.Error(told)
}

// told says whether there is no difference, or the list has one for any client: from
// there on the conversation goes another way, for all of its clients.
func (s *stage) told(c *conversation.Conversation, want, got *conversation.Transcript, err error, list []*unlike) bool {
	if s.greets {
		want, got = want.Greeted(), got.Greeted()
	}
	all, known := s.allowed.First(c, want, got), false
	for _, u := range list {
		known = u.name.MatchString(c.Name) && slices.ContainsFunc(all, u.tells) || known
	}
	return known || len(all) == 0 && err == nil
}

// Random conversations of what leaves nothing behind, two clients at a time on shared
// connections: as with PostgreSQL itself.
func TestRandomConversationsInModes(t *testing.T) {
	for _, mode := range bouncers {
		t.Run(mode.String(), func(t *testing.T) {
			f := start(t, poolOf(mode, 2))
			s := newStage(t, f)
			s.may = func(sql string) bool {
				return !conversation.StaysBehind(sql) && (mode == rules.Transaction || !strings.HasPrefix(sql, "begin"))
			}
			to := s.at(f.Addr(session.ReadWrite).String())
			first := random(t).Uint64() >> 1
			if *talk == 1 {
				first = *seed
			}
			for i := range uint64(*talk) {
				s.pair(t, to, first+i)
				if t.Failed() {
					t.Fatalf("go test ./internal/proxy -run 'TestRandomConversationsInModes/%s' -seed %d -conversations 1", mode, first+i)
				}
			}
		})
	}
}

// Whatever clients of these modes leave in their connections, nobody gets another
// client's bytes: nothing is cleaned between the conversations here, and two others ask
// beside them, on the same two connections, for what only they can have.
func TestLeftoversInModes(t *testing.T) {
	for _, mode := range bouncers {
		t.Run(mode.String(), func(t *testing.T) {
			heard := &hears{}
			f := start(t, func(c *proxy.Config) {
				poolOf(mode, 2)(c)
				c.Log = slog.New(slog.NewTextHandler(io.MultiWriter(t.Output(), heard), nil))
			})
			s := newStage(t, f)
			to := s.at(f.Addr(session.ReadWrite).String())
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			w := &witness{counts: map[string]int{}}
			var both sync.WaitGroup
			for i := range 2 {
				both.Go(func() { w.bystander(ctx, f.dsn(session.ReadWrite, s.role, "pw", "sslmode=disable"), i) })
			}
			r := random(t)
			all, err := conversation.Corpus()
			if err != nil {
				t.Fatal(err)
			}
			r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
			s.patience = brief / 3
			for _, c := range all {
				got, _ := s.try(t, secured(c, to, r), "conv_p", conversation.Cut(r.IntN(4)), c, r) // what it gets may be anything of its own
				if text := fmt.Sprint(got.Lines); strings.Contains(text, bystanders) {
					t.Errorf("%s got another client's bytes: %s", c.Name, text)
				}
			}
			cancel()
			both.Wait()
			for _, what := range w.wrong {
				t.Error(what)
			}
			if w.counts["answered"] < len(all) {
				t.Errorf("%v", w.counts)
			}
			t.Log(w.counts)
			if said := heard.of("master does not speak the protocol"); said != "" {
				t.Error(said)
			}
			f.reconnects(t)(t)
			s.patience, s.may = 0, func(sql string) bool { return strings.HasPrefix(sql, "select i, s from t") }
			s.pair(t, to, *seed) // they go on
		})
	}
}

// bystanders is what only their answers hold.
const bystanders = "of a bystander"

// bystander asks for its own bytes by each protocol. It may meet what others have left,
// such as a time-out, and be told; its answers are its own.
func (w *witness) bystander(ctx context.Context, dsn string, id int) {
	var c *pgconn.PgConn
	for n := 0; ctx.Err() == nil; n++ {
		turn, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		var err error
		if c == nil || c.IsClosed() {
			c, err = pgconn.Connect(turn, dsn)
		}
		if err == nil {
			err = w.asks(turn, c, fmt.Sprintf("%d.%d %s", id, n, bystanders))
		}
		var pg *pgconn.PgError
		switch cancel(); {
		case err == nil:
			w.count("answered")
		case !errors.As(err, &pg), pg.Code == "08P01":
			w.violation("bystander %d: %v", id, err)
		default:
			w.count(pg.Code + " " + pg.Message)
		}
	}
	if c != nil {
		c.Close(context.WithoutCancel(ctx))
	}
}

// asks for mine in a Query, without a name, and with one that both bystanders have.
func (w *witness) asks(ctx context.Context, c *pgconn.PgConn, mine string) error {
	results, err := c.Exec(ctx, "select '"+mine+"'; select '"+mine+"' from generate_series(1, 3)").ReadAll()
	for _, r := range results {
		w.own(r, mine)
	}
	if err != nil {
		return err
	}
	result := c.ExecParams(ctx, "select $1::text, repeat($1, 300)", [][]byte{[]byte(mine)}, nil, nil, nil).Read()
	if w.own(result, mine); result.Err != nil {
		return result.Err
	}
	if _, err := c.Prepare(ctx, "mine", "select $1::text, '"+mine[:1]+"'", nil); err != nil {
		return err
	}
	result = c.ExecPrepared(ctx, "mine", [][]byte{[]byte(mine)}, nil, nil).Read()
	if w.own(result, mine); result.Err != nil {
		return result.Err
	}
	p := c.StartPipeline(ctx)
	p.SendDeallocate("mine")
	if err := p.Sync(); err != nil {
		return err
	}
	return p.Close()
}

// own holds rows against the one answer that is in them.
func (w *witness) own(r *pgconn.Result, mine string) {
	for _, row := range r.Rows {
		if len(row) == 0 || string(row[0]) != mine || len(row) > 1 && !strings.HasPrefix(mine, string(row[1])) && string(row[1]) != strings.Repeat(mine, 300) {
			w.violation("%q instead of %s", row, mine)
		}
	}
}

// hears is a log that can be asked.
type hears struct {
	mu   sync.Mutex
	text strings.Builder
}

func (h *hears) Write(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.text.Write(b)
}

// of is the first line with such words.
func (h *hears) of(words string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	for line := range strings.Lines(h.text.String()) {
		if strings.Contains(line, words) {
			return line
		}
	}
	return ""
}
