// Package console answers those who connect to the database manada, or pgbouncer, of
// a proxy: SHOW and the orders that PgBouncer's console has, with its columns, by the
// simple and the extended protocol.
//
// It shows what others publish and passes orders on to them: Source. What a Source
// does not have is no command. Who may what was decided before: readers may SHOW,
// administrators may give orders too (Right).
//
// It does not log anybody in and knows no PostgreSQL. Start reading at Serve
// (serve.go); the commands are in verbs.go, the tables in show.go.
package console
