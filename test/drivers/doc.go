// Package drivers lets the drivers that applications use say what they get from
// PostgreSQL and through the proxy: node-postgres, psycopg 2 and 3, pgjdbc. Each
// program prints a line for each thing it tried; what it prints must be the same
// on both ways. pgx and libpq are tried in internal/proxy, libpq_pipeline there, too.
//
// `make drivers` installs and runs them.
package drivers
