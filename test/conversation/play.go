package conversation

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// Cut is how a client's bytes are brought to the other side.
type Cut uint8

// Ways to write.
const (
	AsWritten Cut = iota // all up to the next wait in one write
	Whole                // the whole conversation in one write
	Bytes                // byte by byte
	Pieces               // in two pieces at a random place; the first is taken before the second is sent
)

// Player plays conversations to one address.
type Player struct {
	Target Target
	// Direct says that PostgreSQL itself is played to, see the word ~.
	Direct bool
	// Admin is a superuser's connection to PostgreSQL itself, for admin and until.
	Admin *pgconn.PgConn
	// Schema is the first of the search path, made anew by Prepare.
	Schema string
	Cut    Cut
	Random *rand.Rand // where Pieces cuts
	// Patience bounds one play; 0: 6 s.
	Patience time.Duration
}

// patience bounds one play.
func (p *Player) patience() time.Duration { return cmp.Or(p.Patience, 6*time.Second) }

// Transcript is what came back: the lines of each client.
type Transcript struct {
	Lines   [][]string
	Letters []string
}

// Greeted is t without what clients were told of settings at their log-in.
func (t *Transcript) Greeted() *Transcript {
	out := &Transcript{Letters: t.Letters}
	for _, lines := range t.Lines {
		out.Lines = append(out.Lines, slices.DeleteFunc(slices.Clone(lines), func(l string) bool { return strings.HasPrefix(l, "start ") }))
	}
	return out
}

// Prepare makes the schema as each play finds it. owner plays in it.
func Prepare(ctx context.Context, admin *pgconn.PgConn, schema, owner string) error {
	sql := fmt.Sprintf(`set client_min_messages = error; drop schema if exists %[1]s cascade; create schema %[1]s authorization %[2]s; set role %[2]s;
		create table %[1]s.t(i int primary key, s text); insert into %[1]s.t select g, 'row ' || g from generate_series(1, 5) g;
		create table %[1]s.u(i int, s text); create sequence %[1]s.n;
		create function %[1]s.sets(v text) returns void language plpgsql as $f$ begin perform set_config('app.hidden', v, false); end $f$;
		create function %[1]s.temps() returns int language plpgsql as $f$ begin create temp table if not exists hidden(i int); return 1; end $f$;
		create function %[1]s.locks() returns bool language sql as $f$ select pg_try_advisory_lock(hashtext('%[1]s')) $f$;
		create view %[1]s.lv as select %[1]s.locks() l; create procedure %[1]s.works(v text) language plpgsql as $f$ begin perform set_config('app.called', v, false); end $f$;
		create function %[1]s.fires() returns trigger language plpgsql as $f$ begin perform set_config('app.fired', new.i::text, false); return new; end $f$;
		create table %[1]s.w(i int); create trigger fires before insert on %[1]s.w for each row execute function %[1]s.fires();
		reset role`, schema, owner)
	if _, err := admin.Exec(ctx, sql).ReadAll(); err != nil {
		return fmt.Errorf("make schema %s: %w", schema, err)
	}
	return nil
}

// play is one conversation under way.
type play struct {
	*Player
	c       *Conversation
	clients []*client
}

// Play plays c and returns what came back. An error is one of the play itself:
// an address that does not answer, or an answer that never came; the transcript
// then ends there.
func (p *Player) Play(ctx context.Context, c *Conversation) (*Transcript, error) {
	ctx, cancel := context.WithTimeout(ctx, p.patience())
	defer cancel()
	run := &play{Player: p, c: c, clients: make([]*client, c.Clients())}
	defer run.close()
	var failure error
	steps := c.Steps
	if p.Cut == Whole && c.Whole() {
		steps = slices.Concat(only(steps, true), only(steps, false))
	}
	for _, s := range steps {
		if failure = run.step(ctx, s); failure != nil {
			failure = fmt.Errorf("%s, line %d (%.60s): %w", c.Name, s.Line, s, failure)
			break
		}
	}
	return run.transcript(), failure
}

// only are the messages, or all the rest but half.
func only(steps []Step, messages bool) []Step {
	return slices.DeleteFunc(slices.Clone(steps), func(s Step) bool {
		return (s.Kind == Message) != messages || s.Kind == Half
	})
}

func (p *play) close() {
	for _, c := range p.clients {
		if c != nil {
			c.Close()
		}
	}
}

func (p *play) client(ctx context.Context, n int) (*client, error) {
	if p.clients[n] != nil {
		return p.clients[n], nil
	}
	params := map[string]string{"options": "-c search_path=" + p.Schema, "client_encoding": "UTF8"}
	for k, v := range p.c.Params {
		if k == "options" {
			v = params[k] + " " + v
		}
		params[k] = v
	}
	c, err := open(ctx, p.Target, p.c.Minor, params)
	p.clients[n] = c
	return c, err
}

// dial connects a client that makes its own start-up packet.
func (p *play) dial(ctx context.Context, n int) error {
	conn, err := p.Target.dial(ctx)
	if err != nil {
		return err
	}
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline)
	}
	p.clients[n] = newClient(conn, p.Target)
	return nil
}

func (p *play) step(ctx context.Context, s Step) error {
	switch s.Kind {
	case Admin:
		_, err := p.Admin.Exec(ctx, p.put(s.Text)).ReadAll()
		return err
	case Until:
		return p.until(ctx, p.put(s.Text))
	case Letters:
		return nil
	case Dial:
		return p.dial(ctx, s.Client)
	}
	c, err := p.client(ctx, s.Client)
	if err != nil || c.ended {
		return err
	}
	switch s.Kind {
	case Message:
		b, err := p.encode(s.Text)
		c.gather = append(c.gather, b...)
		return err
	case Send:
		return p.send(c)
	case Half:
		return p.half(c, s.N)
	case Cancel:
		return c.cancel(ctx)
	case Fin:
		if err := p.send(c); err != nil || c.ended {
			return err
		}
		return c.fin()
	case Wait:
		if err := p.send(c); err != nil || c.ended {
			return err
		}
		return c.wait(s.Text, s.N)
	}
	return nil
}

func (p *play) put(sql string) string {
	return strings.NewReplacer("$schema", p.Schema, "$owner", p.Target.User).Replace(sql)
}

// until asks until the answer is yes.
func (p *play) until(ctx context.Context, sql string) error {
	for {
		r, err := p.Admin.Exec(ctx, sql).ReadAll()
		if err != nil {
			return err
		}
		if len(r) > 0 && len(r[0].Rows) > 0 && string(r[0].Rows[0][0]) == "t" {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waited in vain: %w", ctx.Err())
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func (p *play) send(c *client) error {
	b := c.gather
	c.gather = nil
	if len(b) == 0 {
		return nil
	}
	var err error
	switch p.Cut {
	case Bytes:
		err = trickle(c, b)
	case Pieces:
		at := p.Random.IntN(len(b))
		if _, err = c.Write(b[:at]); err == nil {
			c.taken()
			_, err = c.Write(b[at:])
		}
	default:
		_, err = c.Write(b)
	}
	if err != nil {
		return c.gone(err)
	}
	return nil
}

// trickle writes byte by byte, a long text's middle in one piece.
func trickle(c *client, b []byte) error {
	const edge = 300
	for i := 0; i < len(b); {
		n := 1
		if i >= edge && i < len(b)-edge {
			n = len(b) - edge - i
		}
		if _, err := c.Write(b[i : i+n]); err != nil {
			return err
		}
		i += n
	}
	return nil
}

func (p *play) half(c *client, keep int) error {
	at := max(0, len(c.gather)-keep)
	if _, err := c.Write(c.gather[:at]); err != nil {
		return c.gone(err)
	}
	c.gather = c.gather[at:]
	c.taken()
	return nil
}

// fin says that nothing more will be sent.
func (c *client) fin() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// gone: the other side does not read any more, which is told by what is read
// from it.
func (c *client) gone(err error) error {
	c.lines = append(c.lines, "not taken")
	return c.wait("end", 1)
}

// wait reads until n messages of a letter have come, or the end.
func (c *client) wait(letter string, n int) error {
	for {
		typ, b, err := c.message()
		if err != nil {
			if timeout(err) {
				return err
			}
			c.lines, c.ended = append(c.lines, "end"), true
			return nil
		}
		c.lines = append(c.lines, show(typ, b))
		c.letters = append(c.letters, typ)
		if letter == string(typ) {
			if n--; n == 0 {
				return nil
			}
		}
	}
}

func timeout(err error) bool {
	t, ok := err.(interface{ Timeout() bool })
	return ok && t.Timeout()
}

// transcript makes alike what differs between two runs.
func (p *play) transcript() *Transcript {
	t := &Transcript{}
	pids := map[string]string{}
	for i, c := range p.clients {
		if c != nil && c.pid != 0 {
			pids[strconv.Itoa(int(c.pid))] = fmt.Sprintf("pid(%d)", i+1)
		}
	}
	same := strings.NewReplacer(p.Schema, "SCHEMA", p.Target.User, "OWNER")
	for _, c := range p.clients {
		var lines []string
		letters := ""
		if c != nil {
			for _, l := range c.lines {
				lines = append(lines, same.Replace(alike(l, pids)))
			}
			letters = string(c.letters)
		}
		t.Lines, t.Letters = append(t.Lines, lines), append(t.Letters, letters)
	}
	return t
}

var (
	digits      = regexp.MustCompile(`\b[0-9]+\b`)
	lone        = regexp.MustCompile(`^D [0-9]+$`)
	transaction = regexp.MustCompile(`transaction [0-9]+`)
)

// alike names process ids where they are told: in errors and notices, by
// notifications, and in a row of nothing else.
func alike(l string, pids map[string]string) string {
	if !strings.ContainsAny(l[:1], "ENA") && !lone.MatchString(l) {
		return l
	}
	l = strings.ReplaceAll(transaction.ReplaceAllString(l, "transaction N"), `portal \"~\"`, `portal \"\"`)
	return digits.ReplaceAllStringFunc(l, func(d string) string {
		if name, ok := pids[d]; ok {
			return name
		}
		return d
	})
}
