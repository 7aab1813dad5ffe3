// Package guardian is the tiny parent of the postmaster, the process
// `manada guardian`.
//
// It exists so that the agent may be restarted, upgraded or killed while
// PostgreSQL goes on, and so that a dead postmaster is a proven fact within
// milliseconds: it is a subreaper, so what a dying postmaster leaves behind
// becomes its child; it kills all of that at once and says "empty" only after
// it has looked into /proc. A CPU-busy backend outlives its postmaster by many
// seconds otherwise and can still acknowledge commits (trap T14).
//
// It deliberately decides nothing, knows no SQL and no terms, and starts only
// what it is told to. It holds a flock on the data directory (two containers on
// one volume do not see each other's postmaster.pid).
//
// Start reading at Run (server.go), then keeper.sweep (keeper.go). The agent's
// side is Ensure (ensure.go) and Client (client.go).
package guardian
