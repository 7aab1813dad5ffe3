package pool

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"manada/internal/pgconnect"
	"manada/internal/proxy/wire"
)

// own is the log-in of the proxy itself, for what it asks on its own account.
func own(user string, passwords func() []string, database string) Login {
	l := Login{Params: []wire.Param{{Name: "user", Value: user}, {Name: "database", Value: database}}}
	if passwords != nil {
		l.Passwords = passwords()
	}
	// Compiling a question of ours takes longer than answering it.
	settings := pgconnect.Settings(user, "manada proxy", map[string]string{"jit": "off"})
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		l.Params = append(l.Params, wire.Param{Name: name, Value: settings[name]})
	}
	return l
}

// ownPatience is for how long a session of the proxy's own is tried for while all
// connections are taken: the agent beside PostgreSQL makes room.
const ownPatience = 2 * time.Second

// openOwn opens a session for what the proxy asks on its own account.
func (d *Dialer) openOwn(ctx context.Context, addr string, l Login) (*Backend, error) {
	for until := time.Now().Add(ownPatience); ; {
		b, err := d.Open(ctx, addr, l)
		var e *wire.Error
		if err == nil || !errors.As(err, &e) || e.Code != "53300" || time.Now().After(until) {
			return b, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(50 * time.Millisecond):
		}
	}
}
