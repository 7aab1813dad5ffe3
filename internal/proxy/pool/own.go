package pool

import (
	"maps"
	"slices"

	"manada/internal/pgconnect"
	"manada/internal/proxy/wire"
)

// own is the log-in of the proxy itself, for what it asks on its own account.
func own(user, password, database string) Login {
	l := Login{Password: password, Params: []wire.Param{{Name: "user", Value: user}, {Name: "database", Value: database}}}
	settings := pgconnect.Settings(user, "manada proxy", nil)
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		l.Params = append(l.Params, wire.Param{Name: name, Value: settings[name]})
	}
	return l
}
