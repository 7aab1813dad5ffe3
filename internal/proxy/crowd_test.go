package proxy_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"manada/internal/proxy"
	"manada/internal/proxy/pool"
	"manada/internal/proxy/pool/rules"
	"manada/internal/proxy/scram"
	"manada/internal/proxy/session"
	"manada/internal/proxy/wire"
)

// crowd is many clients at once, each of which asks one query after the other. It is
// a process of its own: the files of both ends are too many for one.
type crowd struct {
	Addr, Role, Password string
	Salt                 []byte
	Iterations, Clients  int
	For                  time.Duration
}

// came is how often each client was answered, the slowest first, what went wrong, and
// how long all took to be logged in.
type came struct {
	Answers []int
	Errors  int
	First   string
	LogIn   time.Duration
}

const crowdEnv = "MANADA_TEST_CROWD"

// TestCrowdItself is the crowd's process.
func TestCrowdItself(t *testing.T) {
	var c crowd
	if s := os.Getenv(crowdEnv); s == "" {
		t.Skip("it is run by others")
	} else if err := json.Unmarshal([]byte(s), &c); err != nil {
		t.Fatal(err)
	}
	out, err := json.Marshal(c.run(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.NewFile(3, "answer").Write(out); err != nil {
		t.Fatal(err)
	}
}

func (c crowd) run(ctx context.Context) (out came) {
	keys, err := scram.FromPassword(c.Password, c.Salt, c.Iterations)
	if err != nil {
		return came{Errors: 1, First: err.Error()}
	}
	d := &pool.Dialer{PlainLocal: true, ConnectTimeout: time.Minute, LoginTimeout: time.Minute, MaxLogins: c.Clients}
	var mu sync.Mutex
	var work, in sync.WaitGroup
	in.Add(c.Clients)
	begin, began := make(chan struct{}), time.Now()
	for i := range c.Clients {
		work.Go(func() {
			b, err := d.Open(ctx, c.Addr, pool.Login{Params: []wire.Param{{Name: "user", Value: c.Role}, {Name: "database", Value: "postgres"},
				{Name: "application_name", Value: fmt.Sprint("client ", i)}}, Keys: &keys})
			in.Done()
			<-begin
			n := 0
			if err == nil {
				defer b.Conn.Close()
				n, err = asks(b, i, time.Now().Add(c.For))
			}
			mu.Lock()
			defer mu.Unlock()
			out.Answers = append(out.Answers, n)
			if err != nil {
				if out.Errors++; out.Errors == 1 {
					out.First = err.Error()
				}
			}
		})
	}
	in.Wait()
	out.LogIn = time.Since(began)
	close(begin)
	work.Wait()
	slices.Sort(out.Answers)
	return out
}

// asks asks until the time is up. What comes back names the client, so that another's
// answer is seen.
func asks(b *pool.Backend, i int, until time.Time) (n int, err error) {
	if err := b.Conn.SetDeadline(until.Add(2 * time.Minute)); err != nil {
		return 0, err
	}
	sql := wire.AppendMessage(nil, wire.TypeQuery, []byte("select current_setting('application_name')\x00"))
	want := fmt.Sprint("client ", i)
	r := wire.NewReader(b.Conn)
	for ; time.Now().Before(until); n++ {
		if _, err := b.Conn.Write(sql); err != nil {
			return n, err
		}
		got := ""
		for typ := byte(0); typ != wire.TypeReady; {
			var body []byte
			if typ, body, err = r.Next(1 << 16); err != nil {
				return n, err
			}
			switch typ {
			case wire.TypeError:
				return n, wire.ParseError(body)
			case wire.TypeDataRow:
				got = string(body[6:])
			}
		}
		if got != want {
			return n, fmt.Errorf("%q came to %q", got, want)
		}
	}
	return n, nil
}

// start runs the crowd.
func (c crowd) start(t testing.TB) (out came) {
	t.Helper()
	in, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	from, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestCrowdItself$", "-test.timeout=10m")
	cmd.Env = append(os.Environ(), crowdEnv+"="+string(in))
	cmd.ExtraFiles = []*os.File{to}
	err = cmd.Start()
	to.Close()
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(from)
	if err == nil {
		err = json.Unmarshal(b, &out)
	}
	if w := cmd.Wait(); err != nil || w != nil {
		t.Fatalf("%v, %v: %s", err, w, b)
	}
	return out
}

// Many clients of one host on few connections: none fails, none waits for much longer
// than the others, none gets another's answer. MANADA_CROWD=10000,60s,100 says how
// many, for how long and on how many connections: `make proxy-crowd`.
func TestCrowd(t *testing.T) {
	clients, span, size := 500, 2*time.Second, 5
	if s := os.Getenv("MANADA_CROWD"); s != "" {
		w := strings.Split(s+",,", ",")
		var errs [3]error
		clients, errs[0] = strconv.Atoi(w[0])
		span, errs[1] = time.ParseDuration(w[1])
		size, errs[2] = strconv.Atoi(w[2])
		if err := errors.Join(errs[:]...); err != nil {
			t.Fatal(err)
		}
	}
	f := start(t, func(c *proxy.Config) {
		d := proxy.DefaultConfig()
		c.Split, c.Pool, c.MaxClientConn, c.ConnectWait = false, d.Pool, d.MaxClientConn, d.ConnectWait
		c.Pool.Default.Mode, c.Pool.Default.Size = rules.Auto, size
	})
	role := f.role(t, "login password 'x'")
	admin := connect(t, superuser(f.primary.addr()))
	v, err := scram.ParseVerifier(query[string](t, admin, "select rolpassword from pg_authid where rolname = $1", role))
	if err != nil {
		t.Fatal(err)
	}
	came := crowd{f.Addr(session.ReadWrite).String(), role, "x", v.Salt, v.Iterations, clients, span}.start(t)
	slowest, median, all := came.Answers[0], came.Answers[len(came.Answers)/2], 0
	for _, n := range came.Answers {
		all += n
	}
	t.Logf("%d clients on %d connections: logged in within %s; %d answers, of the slowest %d, of the median %d; %d errors", clients, size, came.LogIn, all, slowest, median, came.Errors)
	if came.Errors > 0 || len(came.Answers) != clients {
		t.Errorf("%d errors of %d clients: %s", came.Errors, len(came.Answers), came.First)
	}
	if 3*slowest < median {
		t.Errorf("the slowest was answered %d times, the median %d", slowest, median)
	}
	if n := query[int](t, admin, "select count(*) from pg_stat_activity where usename = $1", role); n > size {
		t.Errorf("%d connections, not %d", n, size)
	}
}
