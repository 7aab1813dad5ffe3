package guide

import (
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5/pgconn"

	"manada/test/dockertest"
)

// balance: 500 autocommit SELECTs from ten connections reach both nodes, at
// least a third each, by pgpool's count and by PostgreSQL's, and a connection
// reads what it has just written.
func (g *guide) balance() {
	ctx := g.Context()
	got(dockertest.Query(ctx, g.dsn, "drop table if exists balanced; create table balanced (conn int primary key, n int not null)"))(g)
	before := g.transactions()
	var wg sync.WaitGroup
	errs := make(chan error, 10)
	for n := range 10 {
		wg.Go(func() {
			if err := g.session(n); err != nil {
				errs <- fmt.Errorf("connection %d: %w", n, err)
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		g.Error(err)
	}
	rows, err := g.Exec(ctx, "pgpool", "bash", "-c", `psql "$(manada uri --inside)" -Atc "SHOW POOL_NODES"`)
	g.must(err)
	g.Logf("SHOW POOL_NODES:\n%s", rows)
	total, counts := 0, []int{}
	for _, line := range strings.Split(rows, "\n") {
		f := strings.Split(line, "|")
		if len(f) < 9 {
			g.Fatalf("SHOW POOL_NODES has %d columns: %s", len(f), line)
		}
		c, err := strconv.Atoi(f[8]) // select_cnt
		g.must(err)
		counts, total = append(counts, c), total+c
	}
	if len(counts) != 2 || total < 500 {
		g.Fatalf("select_cnt of the nodes: %v, want two with 500 together", counts)
	}
	for _, c := range counts {
		if c < total/3 {
			g.Errorf("less than a third of the SELECTs on one node: %v", counts)
		}
	}
	g.until("PostgreSQL to count a third of them on each node", func() bool {
		after := g.transactions()
		return after["master"]-before["master"] >= 500/3 && after["slave"]-before["slave"] >= 500/3
	})
}

// session writes once, reads it back, then reads fifty times.
func (g *guide) session(n int) error {
	ctx := g.Context()
	c, err := pgconn.Connect(ctx, g.dsn)
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	for i := range 5 {
		if _, err := c.Exec(ctx, fmt.Sprintf("insert into balanced values (%d, %d) on conflict (conn) do update set n = excluded.n", n, i)).ReadAll(); err != nil {
			return err
		}
		res, err := c.Exec(ctx, fmt.Sprintf("select n from balanced where conn = %d", n)).ReadAll()
		if err != nil {
			return err
		}
		if len(res[0].Rows) != 1 || string(res[0].Rows[0][0]) != strconv.Itoa(i) {
			return fmt.Errorf("wrote %d and read %q", i, res[0].Rows)
		}
	}
	for range 50 {
		if _, err := c.Exec(ctx, "select count(*) from balanced").ReadAll(); err != nil {
			return err
		}
	}
	return nil
}

// transactions counts per node what its statistics say of the database.
func (g *guide) transactions() map[string]int {
	g.Helper()
	out := map[string]int{}
	for _, c := range []string{"master", "slave"} {
		v, err := g.Value(g.Context(), c, "select xact_commit + xact_rollback from pg_stat_database where datname = 'app_db'")
		g.must(err)
		if out[c], err = strconv.Atoi(v); err != nil {
			g.Fatal(err)
		}
	}
	return out
}
