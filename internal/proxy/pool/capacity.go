package pool

import (
	"context"
	"strconv"

	"manada/internal/cluster"
)

// Capacity is how many connections a node allows, and how many of these ordinary
// roles do not get.
type Capacity struct{ Max, Reserved int }

const capacitySQL = `select pg_catalog.current_setting('max_connections'), pg_catalog.current_setting('superuser_reserved_connections')::int
	+ coalesce(pg_catalog.current_setting('reserved_connections', true)::int, 0)`

// Capacity asks the node at addr.
func (a *Asker) Capacity(ctx context.Context, addr string) (c Capacity, err error) {
	err = a.Ask(ctx, addr, cluster.Database, capacitySQL, nil, 2, func(cols []string) (err error) {
		if c.Max, err = strconv.Atoi(cols[0]); err == nil {
			c.Reserved, err = strconv.Atoi(cols[1])
		}
		return err
	})
	return c, err
}
