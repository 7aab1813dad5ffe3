package verb

import (
	"slices"
	"strings"
)

// What is asked of a proxy. The last part of the path is the table or the verb as its
// console knows it.
var (
	ProxyIndex = asks("proxy", "/v1/proxy", "tells which tables and verbs a proxy has")
	ProxyShow  = asks("proxy show", "/v1/proxy/{name}", "shows a table of a proxy's console")
)

// database, all and client are what orders to a proxy take, each in the field argument.
var (
	database = Argument{Name: "argument", As: "DATABASE", Needed: true}
	all      = Argument{Name: "argument", As: "DATABASE"} // without one it is for all
	client   = Argument{Name: "argument", As: "ID", Needed: true}
)

func order(word string, danger Danger, sentence string, takes ...Argument) Verb {
	name := "proxy " + strings.ReplaceAll(strings.ToLower(word), "_", "-")
	return endless(does(name, "/v1/proxy/"+strings.ToLower(word), danger, sentence, takes...))
}

// Orders are those that a proxy takes, in the order of its help.
var Orders = []Verb{
	order("PAUSE", Holds, "hands out no server connection any more, waits until all are given back and closes them; clients wait", all),
	order("RESUME", Harmless, "ends PAUSE and KILL", all),
	order("DISABLE", Holds, "lets no new client in", database),
	order("ENABLE", Harmless, "ends DISABLE", database),
	again(order("RECONNECT", Harmless, "closes each server connection as soon as it is given back", all)),
	again(order("WAIT_CLOSE", Harmless, "waits until the server connections that RECONNECT or a change left behind are closed", all)),
	order("KILL", Ends, "ends all clients and server connections at once, and holds new ones until RESUME", all),
	order("KILL_CLIENT", Ends, "ends one client; its id is in SHOW CLIENTS", client),
	again(order("RELOAD", Harmless, "has the host's configuration read again; no client is disconnected")),
}

// Proxy is all that is asked of one.
var Proxy = slices.Concat([]Verb{ProxyIndex, ProxyShow}, Orders)

// Order finds an order by its word, in any case.
func Order(word string) (Verb, bool) {
	i := slices.IndexFunc(Orders, func(v Verb) bool { return strings.EqualFold(v.Word(), word) })
	if i < 0 {
		return Verb{}, false
	}
	return Orders[i], true
}
