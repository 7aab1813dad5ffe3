package postgres

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"manada/internal/cluster"
	"manada/internal/pgconnect"
)

// What the proxy counts on in a switchover (pool.Dialer.Ahead): a connection made to
// a standby, on which somebody logs in when that has been promoted, is a session of a
// primary like any other.
func TestConnectedBeforePromotion(t *testing.T) {
	a := leader(t, "a")
	b := standby(t, a, "b", 1, 1)
	ctx := deadline(t, 60*time.Second)
	a.sql("create table public.t (i int)")
	until(t, "the standby has all", func() bool { return b.observe().Replayed == a.observe().Inserted })
	cfg, err := pgconn.ParseConfig(pgconnect.Local(b.socketDir, b.cfg.Port, cluster.RoleSuperuser))
	must(t, err)
	network, addr := pgconn.NetworkAddress(cfg.Host, cfg.Port)
	early, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	must(t, err)
	b.freeze()
	a.kill9()
	_, err = b.Promote(ctx, 2, 2)
	must(t, err)
	_, err = b.SetSync(ctx, cluster.CommitAlone())
	must(t, err)
	cfg.DialFunc = func(context.Context, string, string) (net.Conn, error) { return early, nil }
	c, err := pgconn.ConnectConfig(ctx, cfg)
	must(t, err)
	defer c.Conn().Close()
	if v := c.ParameterStatus("in_hot_standby"); v != "off" {
		t.Errorf("in_hot_standby is %q", v)
	}
	_, err = run(ctx, c, "insert into public.t values (1)")
	must(t, err)
}
