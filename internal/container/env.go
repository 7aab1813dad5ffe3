package container

import (
	"fmt"
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"manada/internal/cluster"
	"manada/internal/config"
	"manada/internal/pki"
)

// Host is what a container was told: by its environment, nothing else.
type Host struct {
	Cluster   string
	Node      string
	NodeID    string // repmgr's number of the node
	Roles     []string
	Advertise string // the name under which other containers reach this one
	Port      int    // of PostgreSQL, or of the proxy on a host that is nothing else

	// Partners are the other voters, HOST:PORT of their agents; Founder is the
	// address of the host that may found the herd, without a port.
	Partners []string
	Founder  string

	JoinSecret string // given; empty: the one on the shared volume
	App        App
	Superuser  string // its password, when given
	Proxy      ProxyOptions

	Notes []string // what is not obeyed, for the log
}

// App is the role and the database that a new herd gets for its application.
type App struct {
	User     string `json:"user"`
	Password string `json:"password,omitempty"`
	Database string `json:"database"`
	// Monitor is repmgr's role, when it is another: it may look, no more.
	Monitor string `json:"monitor,omitempty"`
}

// ProxyOptions are pgpool's that have a meaning here.
type ProxyOptions struct {
	Off bool // no load balancing: everything goes to the primary
}

// reader reads variables; what it was asked for counts as known.
type reader struct {
	vars   map[string]string
	asked  map[string]bool
	errs   []error
	readFn func(string) ([]byte, error)
}

// get reads NAME, else the file that NAME_FILE names.
func (r *reader) get(name string) string {
	r.asked[name], r.asked[name+"_FILE"] = true, true
	if v := r.vars[name]; v != "" {
		return v
	}
	file := r.vars[name+"_FILE"]
	if file == "" {
		return ""
	}
	b, err := r.readFn(file)
	if err != nil {
		r.errs = append(r.errs, fmt.Errorf("$%s_FILE: %w", name, err))
		return ""
	}
	return strings.TrimRight(string(b), "\r\n")
}

// first is the first of these variables that is set.
func (r *reader) first(names ...string) string {
	v := ""
	for _, n := range names {
		if w := r.get(n); v == "" {
			v = w
		}
	}
	return v
}

func (r *reader) fail(name, format string, args ...any) {
	r.errs = append(r.errs, fmt.Errorf("$%s: %s", name, fmt.Sprintf(format, args...)))
}

func (r *reader) number(name string, def int) int {
	v := r.get(name)
	if v == "" {
		return def
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 {
		r.fail(name, "%q is no number from 1 up", v)
		return def
	}
	return n
}

// Read takes the environment ("NAME=value"). Every mistake is reported.
func Read(environ []string, hostname string) (*Host, []error) {
	r := &reader{vars: map[string]string{}, asked: map[string]bool{}, readFn: os.ReadFile}
	for _, e := range environ {
		if name, value, ok := strings.Cut(e, "="); ok {
			r.vars[name] = value
		}
	}
	h := &Host{Cluster: r.vars["MANADA_CLUSTER"]}
	if h.Cluster == "" {
		h.Cluster = "herd"
	}
	h.roles(r)
	h.names(r, hostname)
	h.partners(r)
	h.credentials(r)
	h.proxy(r)
	h.Notes = append(h.Notes, r.unknown()...)
	return h, r.errs
}

// roles: a host with backends of pgpool is a proxy, one with repmgr's variables
// has a database and a vote. MANADA_ROLES says it outright.
func (h *Host) roles(r *reader) {
	switch {
	case r.vars["MANADA_ROLES"] != "":
		for _, s := range strings.Split(r.vars["MANADA_ROLES"], ",") {
			h.Roles = append(h.Roles, strings.TrimSpace(s))
		}
	case r.vars["PGPOOL_BACKEND_NODES"] != "":
		h.Roles = []string{string(config.ProxyRole)}
	case r.vars["REPMGR_PARTNER_NODES"] != "":
		h.Roles = []string{string(config.Database), string(config.Store)}
	default:
		r.fail("MANADA_ROLES", "what is this container? PGPOOL_BACKEND_NODES makes it a proxy, REPMGR_PARTNER_NODES a database; else set MANADA_ROLES, as to store,repository")
	}
}

// Has says whether the host plays a role.
func (h *Host) Has(role config.Role) bool { return slices.Contains(h.Roles, string(role)) }

// HasAgent says whether an agent runs here: not on a pure proxy.
func (h *Host) HasAgent() bool {
	return h.Has(config.Database) || h.Voter() || h.Has(config.Repository)
}

// Voter says whether it votes.
func (h *Host) Voter() bool { return h.Has(config.Store) }

func (h *Host) names(r *reader, hostname string) {
	h.NodeID = r.get("REPMGR_NODE_ID")
	name := r.get("REPMGR_NODE_NAME")
	if v := r.vars["MANADA_NODE"]; v != "" {
		name = v
	}
	if name == "" {
		name = map[bool]string{true: "pgpool", false: hostname}[h.Has(config.ProxyRole) && len(h.Roles) == 1]
		if h.Has(config.Repository) {
			name = "pgbackrest"
		}
	}
	if err := cluster.CheckNodeName(name); err != nil {
		r.fail("REPMGR_NODE_NAME", "%v", err)
	}
	h.Node = name
	h.Advertise = r.get("REPMGR_NODE_NETWORK_NAME")
	if v := r.vars["MANADA_ADVERTISE"]; v != "" {
		h.Advertise = v
	}
	if h.Advertise == "" {
		h.Advertise = name
	}
	if h.Has(config.Database) {
		h.Port = r.number("REPMGR_PORT_NUMBER", 5432)
	} else {
		r.get("REPMGR_PORT_NUMBER")
	}
}

// peerPort is where agents answer.
const peerPort = "7400"

// partners: repmgr's list names the hosts with a vote, this one among them. A
// proxy knows them by pgpool's list of backends, a repository host by PGHOST.
func (h *Host) partners(r *reader) {
	var all []string
	for _, s := range strings.Split(r.get("REPMGR_PARTNER_NODES"), ",") {
		if s = strings.TrimSpace(s); s != "" {
			all = append(all, hostOnly(s))
		}
	}
	for _, s := range strings.Split(r.get("PGPOOL_BACKEND_NODES"), ",") {
		if s = strings.TrimSpace(s); s == "" {
			continue
		}
		if m := backend.FindStringSubmatch(s); m != nil {
			all = append(all, m[1])
		} else {
			r.fail("PGPOOL_BACKEND_NODES", "%q is not NUMBER:HOST:PORT", s)
		}
	}
	pghost := r.get("PGHOST")
	if strings.HasPrefix(pghost, "/") || h.Has(config.Database) {
		pghost = "" // a socket, or meant for psql
	}
	if pghost != "" {
		all = append(all, pghost)
	}
	h.Founder = hostOnly(r.get("REPMGR_PRIMARY_HOST"))
	if h.Founder == "" {
		h.Founder = pghost
	}
	if h.Founder != "" {
		all = append(all, h.Founder)
	}
	for _, s := range all {
		if p := net.JoinHostPort(s, peerPort); s != h.Advertise && !slices.Contains(h.Partners, p) {
			h.Partners = append(h.Partners, p)
		}
	}
	if h.Founder == "" && h.Voter() {
		r.fail("REPMGR_PRIMARY_HOST", "is not set: the same address in every container, that of the host which may found the herd")
	}
	if len(h.Partners) == 0 && !h.Founds() {
		r.fail("REPMGR_PARTNER_NODES", "names no other host of the herd")
	}
}

var backend = regexp.MustCompile(`^[0-9]+:([^:]+)(:[0-9]+.*)?$`)

// hostOnly takes the port off an address.
func hostOnly(s string) string {
	if host, _, err := net.SplitHostPort(s); err == nil {
		return host
	}
	return s
}

// Founds says whether this host may found the herd.
func (h *Host) Founds() bool {
	return h.Has(config.Database) && h.Voter() && h.Founder == h.Advertise
}

func (h *Host) credentials(r *reader) {
	h.JoinSecret = r.first("REPMGR_PASSWORD", "PGPOOL_SR_CHECK_PASSWORD")
	pgpassword := r.get("PGPASSWORD")
	if h.JoinSecret == "" && !h.Has(config.Database) {
		h.JoinSecret = pgpassword
	}
	if h.JoinSecret != "" {
		if err := pki.CheckShared(h.JoinSecret); err != nil {
			r.fail("REPMGR_PASSWORD", "%v", err)
		}
	}
	h.App = App{User: r.get("POSTGRESQL_USERNAME"), Password: r.get("POSTGRESQL_PASSWORD"), Database: r.get("POSTGRESQL_DATABASE")}
	h.Superuser = r.first("POSTGRESQL_POSTGRES_PASSWORD", "PGPOOL_POSTGRES_PASSWORD")
	if h.App.User == "" || h.App.User == cluster.RoleSuperuser {
		if h.Superuser == "" {
			h.Superuser = h.App.Password // the original's meaning, too
		}
		h.App.User, h.App.Password = "", ""
	}
	monitor := r.first("REPMGR_USERNAME", "PGPOOL_SR_CHECK_USER")
	if monitor != h.App.User && monitor != cluster.RoleSuperuser && h.Has(config.Database) {
		h.App.Monitor = monitor
	}
	for name, v := range map[string]string{"POSTGRESQL_USERNAME": h.App.User, "POSTGRESQL_DATABASE": h.App.Database, "REPMGR_USERNAME": h.App.Monitor} {
		if strings.ContainsAny(v, "\x00\n\r") || len(v) > 63 || strings.HasPrefix(v, "pg_") || strings.HasPrefix(v, "manada_") {
			r.fail(name, "%q cannot be used: want up to 63 characters, not beginning with pg_ or manada_", v)
		}
	}
}

func (h *Host) proxy(r *reader) {
	if !h.Has(config.ProxyRole) {
		return
	}
	port := r.number("PGPOOL_PORT_NUMBER", 5432)
	if len(h.Roles) == 1 {
		h.Port = port
	}
	if v := r.get("PGPOOL_ENABLE_LOAD_BALANCING"); v != "" {
		if yes, ok := truth[strings.ToLower(v)]; !ok {
			r.fail("PGPOOL_ENABLE_LOAD_BALANCING", "%q is neither yes nor no", v)
		} else {
			h.Proxy.Off = !yes
		}
	}
	if n := r.first("PGPOOL_MAX_POOL", "PGPOOL_NUM_INIT_CHILDREN"); n != "" {
		h.Notes = append(h.Notes, "$PGPOOL_NUM_INIT_CHILDREN and $PGPOOL_MAX_POOL are not obeyed: there are no processes to be counted; see proxy.max_clients")
	}
	user, password := r.get("PGPOOL_ADMIN_USERNAME"), r.get("PGPOOL_ADMIN_PASSWORD") // both are read: what was not read is called unknown
	if user != "" || password != "" {
		h.Notes = append(h.Notes, "$PGPOOL_ADMIN_USERNAME and $PGPOOL_ADMIN_PASSWORD are not needed: there is no PCP port; docker exec is the way in")
	}
	r.get("PGPOOL_POSTGRES_USERNAME")
}

var truth = map[string]bool{"yes": true, "true": true, "on": true, "1": true, "no": false, "false": false, "off": false, "0": false}

// harmless are variables that are known, mean nothing here and need no word.
var harmless = []string{"REPMGR_NODE_ID", "PGPORT", "POSTGRESQL_PORT_NUMBER"}

// unknown names the variables of the original images that are not obeyed.
func (r *reader) unknown() []string {
	var out []string
	for name, v := range r.vars {
		ours := strings.HasPrefix(name, "REPMGR_") || strings.HasPrefix(name, "PGPOOL_") || strings.HasPrefix(name, "POSTGRESQL_")
		if ours && v != "" && !r.asked[name] && !slices.Contains(harmless, name) {
			out = append(out, "$"+name+" is not known here and not obeyed: see docs/containers.md")
		}
	}
	slices.Sort(out)
	return out
}
