// Package container makes a host of a herd out of a container: it reads the
// environment that the images of bitnami/postgresql-repmgr and bitnami/pgpool
// are given, and the configuration files of PostgreSQL, repmgr and pgBackRest
// that are mounted; it gives the mounted folders to the account that runs
// everything, writes this host's manada.yaml, and lets the host found a herd or
// join one, with nothing shared but a secret.
//
// What it deliberately does not do: it runs nothing itself. When it is done the
// program becomes `manada run` (package supervisor), whose processes know
// nothing of containers. Only what a user wants in a new database (a role, a
// database, the scripts of docker-entrypoint-initdb.d) is done later, by the
// process first-run beside them.
//
// A second herd must never come to be (finding C6): see enter.go.
//
// Start reading at Read (env.go), then Render (render.go) and Enter (enter.go).
package container
