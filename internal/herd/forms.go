package herd

import (
	"fmt"
	"net"
	"net/url"
	"strings"
)

// Format is how a connection is written down.
type Format string

// The formats.
const (
	LibpqForm  Format = "libpq"  // a URI, for libpq and what is made of it, and for pgx
	KeysForm   Format = "pgx"    // keywords and values, for pgx and libpq
	JDBCForm   Format = "jdbc"   // a URL for pgjdbc
	PgpassForm Format = "pgpass" // lines for ~/.pgpass; they hold the password
)

// Formats are all of them.
var Formats = []Format{LibpqForm, KeysForm, JDBCForm, PgpassForm}

// Connection is what an application needs to connect. It tries Addrs in their order.
type Connection struct {
	Addrs              []string // host:port
	User, Database     string
	Password, Passfile string // each may be empty
	RootCert           string // the server's certificate is checked against it; empty: it is not checked
	Encrypted          bool   // TLS is wanted all the same
}

// Text writes the connection down.
func (c *Connection) Text(f Format) (string, error) {
	switch f {
	case "", LibpqForm:
		return c.libpq(), nil
	case KeysForm:
		return c.keys()
	case JDBCForm:
		return c.jdbc(), nil
	case PgpassForm:
		return c.pgpass()
	}
	return "", fmt.Errorf("%w: there is no format %q", ErrUsage, f)
}

func (c *Connection) libpq() string {
	user := url.User(c.User)
	if c.Password != "" {
		user = url.UserPassword(c.User, c.Password)
	}
	u := url.URL{Scheme: "postgresql", Host: strings.Join(c.Addrs, ","), Path: "/" + c.Database, User: user}
	var q []string
	if mode := c.sslmode(); mode != "" {
		q = append(q, "sslmode="+mode)
	}
	if c.RootCert != "" {
		q = append(q, "sslrootcert="+queryPath(c.RootCert))
	}
	if c.Passfile != "" {
		q = append(q, "passfile="+queryPath(c.Passfile))
	}
	u.RawQuery = strings.Join(q, "&")
	return u.String()
}

// keys has one host and one port for each address.
func (c *Connection) keys() (string, error) {
	var hosts, ports []string
	for _, a := range c.Addrs {
		host, port, err := net.SplitHostPort(a)
		if err != nil {
			return "", fmt.Errorf("address of a proxy: %w", err)
		}
		hosts, ports = append(hosts, host), append(ports, port)
	}
	var b strings.Builder
	for _, kv := range [][2]string{{"host", strings.Join(hosts, ",")}, {"port", strings.Join(ports, ",")}, {"user", c.User}, {"dbname", c.Database},
		{"password", c.Password}, {"passfile", c.Passfile}, {"sslmode", c.sslmode()}, {"sslrootcert", c.RootCert}} {
		if kv[1] == "" {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(kv[0] + "=" + keyValue(kv[1]))
	}
	return b.String(), nil
}

func (c *Connection) sslmode() string {
	switch {
	case c.RootCert != "":
		return "verify-full"
	case c.Encrypted:
		return "require"
	}
	return ""
}

// keyValue quotes a value where that is needed.
func keyValue(s string) string {
	if s != "" && !strings.ContainsAny(s, " '\\\t\n") {
		return s
	}
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}

// jdbc names no passfile, which pgjdbc takes from ~/.pgpass or $PGPASSFILE alone.
func (c *Connection) jdbc() string {
	q := "user=" + url.QueryEscape(c.User)
	if c.Password != "" {
		q += "&password=" + url.QueryEscape(c.Password)
	}
	if mode := c.sslmode(); mode != "" {
		q += "&sslmode=" + mode
	}
	if c.RootCert != "" {
		q += "&sslrootcert=" + url.QueryEscape(c.RootCert)
	}
	return "jdbc:postgresql://" + strings.Join(c.Addrs, ",") + "/" + url.PathEscape(c.Database) + "?" + q
}

var passfileEscape = strings.NewReplacer(`\`, `\\`, `:`, `\:`)

// pgpass is a line for each address, for every database.
func (c *Connection) pgpass() (string, error) {
	if c.Password == "" {
		return "", fmt.Errorf("%w: lines of a .pgpass hold the password: add --show-password; of other roles than postgres the herd knows none", ErrUsage)
	}
	var lines []string
	for _, a := range c.Addrs {
		host, port, err := net.SplitHostPort(a)
		if err != nil {
			return "", fmt.Errorf("address of a proxy: %w", err)
		}
		lines = append(lines, passfileEscape.Replace(host)+":"+port+":*:"+passfileEscape.Replace(c.User)+":"+passfileEscape.Replace(c.Password))
	}
	return strings.Join(lines, "\n"), nil
}

// queryPath escapes a path for a query, but leaves its slashes readable.
func queryPath(p string) string {
	return strings.NewReplacer("%2F", "/", "+", "%20").Replace(url.QueryEscape(p))
}
