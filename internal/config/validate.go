package config

import (
	"fmt"
	"net"
	"regexp"
	"slices"
	"strings"

	"manada/internal/cluster"
	"manada/internal/proxy/hba"
)

var clusterName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,39}$`)

// validate checks what can be told from the values alone.
func (c *Config) validate() Problems {
	v := &validator{c: c}
	v.names()
	v.roles()
	v.network()
	v.timing()
	v.switchover()
	v.parameters()
	v.hba()
	v.replication()
	v.events()
	v.schedule()
	v.compression()
	v.pool()
	if len(v.problems) == 0 {
		v.proxyHBA()
	}
	v.join()
	return v.problems
}

type validator struct {
	c        *Config
	problems Problems
}

// fail reports a problem where the key's value came from.
func (v *validator) fail(key, what, want, hint string) {
	v.problems = append(v.problems, v.c.Problem(key, what, want, hint))
}

func (v *validator) names() {
	if v.c.Cluster == "" {
		v.fail("cluster", "is missing", "a name", "add a line such as  cluster: orders")
	} else if !clusterName.MatchString(v.c.Cluster) {
		v.fail("cluster", fmt.Sprintf("%q cannot be a cluster's name", v.c.Cluster), "1 to 40 of a-z, 0-9, - and _, beginning with a letter or digit", "")
	}
	if v.c.Node == "" {
		v.fail("node", "is missing", "a name that no other host of the cluster has", "add a line such as  node: pg1")
	} else if err := cluster.CheckNodeName(v.c.Node); err != nil {
		v.fail("node", fmt.Sprintf("%q cannot be a node's name", v.c.Node), "1 to 40 of a-z, 0-9 and -, beginning with a letter or digit", "")
	}
	if !clusterName.MatchString(v.c.Backup.Stanza) && v.c.Backup.Stanza != v.c.Cluster {
		v.fail("backup.stanza", fmt.Sprintf("%q cannot be a stanza's name", v.c.Backup.Stanza), "a-z, 0-9, - and _", "")
	}
}

func (v *validator) roles() {
	if len(v.c.Roles) == 0 {
		v.fail("roles", "is empty: this host would do nothing", "a list of: database, store, proxy, repository", "")
	}
	for i, r := range v.c.Roles {
		if slices.Contains(v.c.Roles[:i], r) {
			v.fail("roles", fmt.Sprintf("%q stands twice", r), "", "")
		}
	}
	if v.c.Has(Repository) && v.c.Backup.Enabled == "off" {
		v.fail("backup.enabled", "is off on a host that has the role repository", "auto or on, or no role repository", "")
	}
	if v.c.Durability == cluster.Async {
		v.fail("durability", "async has no automatic failover yet", "quorum or strict", "quorum commits alone when no standby is left; strict makes writes wait")
	}
}

func (v *validator) network() {
	if net.ParseIP(v.c.Listen) == nil && v.c.Listen != "localhost" {
		hint := "other hosts may know this one by a name: advertise"
		if strings.Contains(v.c.Listen, ":") {
			hint = "ports have their own section, ports:"
		}
		v.fail("listen", fmt.Sprintf("%q is no IP address", v.c.Listen), "an IP address of this host, without a port", hint)
	}
	a := v.c.Advertise
	ip := net.ParseIP(a)
	switch {
	case ip != nil && ip.IsUnspecified():
		v.fail("advertise", fmt.Sprintf("%s tells the others no address to dial", a), "the address under which other hosts reach this one", "add a line such as  advertise: 10.0.0.11")
	case a == v.c.Listen:
	case a == "" || strings.ContainsAny(a, " /@") || ip == nil && strings.Contains(a, ":"):
		v.fail("advertise", fmt.Sprintf("%q is no address", a), "a host name or IP address, without a port", "ports have their own section, ports:")
	}
	v.ports()
}

func (v *validator) ports() {
	used := map[int]string{}
	for _, u := range v.c.UsedPorts() {
		if first, taken := used[u.Port]; taken {
			v.fail(u.Key, fmt.Sprintf("%d is already taken by %s", u.Port, first), "a port of its own", "")
			continue
		}
		used[u.Port] = u.Key
	}
}

func (v *validator) timing() {
	t := v.c.Timing
	if t.SuspectAfter < 3*t.Beat {
		v.fail("timing.suspect_after", fmt.Sprintf("%s is less than three beats of %s: one lost packet would be a suspicion", shortDuration(t.SuspectAfter), shortDuration(t.Beat)),
			"at least "+shortDuration(3*t.Beat), "")
	}
	if t.DegradeAfter < 3*t.Beat {
		v.fail("timing.degrade_after", fmt.Sprintf("%s is less than three beats of %s", shortDuration(t.DegradeAfter), shortDuration(t.Beat)), "at least "+shortDuration(3*t.Beat), "")
	}
}

func (v *validator) switchover() {
	if s := v.c.Switchover; s.For < s.Hold {
		v.fail("switchover.for", fmt.Sprintf("%s is less than switchover.hold, which is part of it", shortDuration(s.For)), "at least "+shortDuration(s.Hold), "")
	}
}

// owned are parameters of PostgreSQL on which the protocol stands or that other
// keys set, with where to turn instead.
var owned = map[string]string{
	"synchronous_standby_names":     "the failover protocol sets it; see durability and want_k",
	"synchronous_commit":            "commits must wait for a standby; set it per session or role where a loss is acceptable",
	"primary_conninfo":              "the failover protocol sets it",
	"primary_slot_name":             "the failover protocol sets it",
	"recovery_min_apply_delay":      "a delayed standby cannot take over",
	"promote_trigger_file":          "only an agent promotes",
	"hot_standby":                   "standbys must answer",
	"wal_log_hints":                 "pg_rewind needs it",
	"full_page_writes":              "a crash would lose data",
	"fsync":                         "a crash would lose data",
	"restart_after_crash":           "the agent decides what follows a crash",
	"archive_mode":                  "the backup engine sets it",
	"archive_command":               "the backup engine sets it",
	"archive_library":               "the backup engine sets it",
	"archive_cleanup_command":       "it would remove WAL that other members need",
	"restore_command":               "the backup engine sets it",
	"recovery_end_command":          "the agent decides what follows a promotion",
	"listen_addresses":              "see listen",
	"port":                          "see ports.postgresql",
	"unix_socket_directories":       "see run_dir",
	"data_directory":                "see data_dir",
	"config_file":                   "Manada renders it",
	"hba_file":                      "see postgresql.hba",
	"ident_file":                    "Manada renders it",
	"external_pid_file":             "Manada follows postmaster.pid",
	"password_encryption":           "the proxy and the replication log in with SCRAM",
	"cluster_name":                  "Manada sets it",
	"ssl":                           "Manada's own certificates are used",
	"ssl_ca_file":                   "Manada's own certificates are used",
	"ssl_cert_file":                 "Manada's own certificates are used",
	"ssl_passphrase_command":        "Manada's own certificates are used",
	"db_user_namespace":             "the agent and the proxy log in under the plain names of roles",
	"ssl_key_file":                  "Manada's own certificates are used",
	"ssl_crl_file":                  "Manada's own certificates are used",
	"log_destination":               "see log",
	"logging_collector":             "see log",
	"event_source":                  "see log",
	"max_slot_wal_keep_size":        "see postgresql.max_slot_wal_keep",
	"wal_receiver_create_temp_slot": "slots are kept by the agent",
	"update_process_title":          "processes are told apart by their titles",
	"allow_in_place_tablespaces":    "for PostgreSQL's own tests only",
	"lc_messages":                   "messages of PostgreSQL are read by Manada",
	"include":                       "give each parameter here",
	"include_if_exists":             "give each parameter here",
	"include_dir":                   "give each parameter here",
	"unix_socket_permissions":       "the agent connects through the socket",
	"unix_socket_group":             "the agent connects through the socket",
	"stats_temp_directory":          "see run_dir",
	"zero_damaged_pages":            "a standby would hide a corrupt page",
	"ignore_checksum_failure":       "a standby would hide a corrupt page",
	"ignore_invalid_pages":          "a standby would hide a corrupt page",
	"default_transaction_read_only": "the proxy tells primary and standby apart by recovery",
}

// OwnedParameter says why a parameter cannot be set in the file; "" when it can.
func OwnedParameter(name string) string {
	name = strings.ToLower(name)
	if strings.HasPrefix(name, "recovery_target") {
		return "see manada restore"
	}
	return owned[name]
}

var parameterName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_$]*(\.[A-Za-z_][A-Za-z0-9_$]*)?$`)

func (v *validator) parameters() {
	names := make([]string, 0, len(v.c.PostgreSQL.Parameters))
	for n := range v.c.PostgreSQL.Parameters {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		for _, p := range CheckParameter(n, v.c.PostgreSQL.Parameters[n]) {
			v.fail(parametersKey+"."+n, p.What, p.Want, p.Hint)
		}
	}
}

// CheckParameter says what is wrong with a parameter of PostgreSQL, of a host or
// of the cluster. Whether PostgreSQL takes the value only PostgreSQL knows.
func CheckParameter(name, value string) Problems {
	var ps Problems
	bad := func(what, want, hint string) { ps = append(ps, Problem{Key: name, What: what, Want: want, Hint: hint}) }
	if !parameterName.MatchString(name) {
		bad("is no name of a parameter", "", "")
	}
	if strings.ContainsAny(value, "\n\r\x00") {
		bad("holds a line break", "one line", "")
	}
	if why := OwnedParameter(name); why != "" {
		bad("cannot be set here: "+why, "", "remove the line")
	}
	if strings.EqualFold(name, "wal_level") && value != "replica" && value != "logical" {
		bad(fmt.Sprintf("%q does not allow replication", value), "replica or logical", "")
	}
	if strings.EqualFold(name, "ssl_min_protocol_version") && value != "TLSv1.2" && value != "TLSv1.3" {
		bad(fmt.Sprintf("%q lets protocols in that are broken", value), "TLSv1.2 or TLSv1.3", "")
	}
	return ps
}

var hbaTypes = []string{"local", "host", "hostssl", "hostnossl", "hostgssenc", "hostnogssenc"}

func (v *validator) hba() {
	for i, line := range v.c.PostgreSQL.HBA {
		f := strings.Fields(line)
		n := 4 // local DATABASE USER METHOD; the others have an address before the method
		if len(f) > 0 && f[0] != "local" {
			n = 5
		}
		what := fmt.Sprintf("line %d, %q: ", i+1, line)
		switch {
		case len(f) == 0 || !contains(hbaTypes, f[0]):
			v.fail("postgresql.hba", what+"does not begin with a connection type", strings.Join(hbaTypes, ", "), "")
		case len(f) < n:
			v.fail("postgresql.hba", what+"too few fields", "TYPE DATABASE USER [ADDRESS] METHOD", "")
		case strings.ContainsAny(line, "\n\x00"):
			v.fail("postgresql.hba", what+"holds a line break", "one rule per entry", "")
		case f[0] != "local" && slices.Contains(f[n-1:], "trust"):
			v.fail("postgresql.hba", what+"would let anyone in without a password", "scram-sha-256, cert or reject", "")
		}
	}
}

func (v *validator) events() {
	if v.c.Events.Command == "" {
		return
	}
	if _, err := ParseCommand(v.c.Events.Command); err != nil {
		v.fail("events.command", err.Error(), `a program and its arguments, such as  /usr/local/bin/tell %n %e %s "%t" "%d"`, "")
	}
}

// proxyHBA: the proxy holds the same lines against its clients.
func (v *validator) proxyHBA() {
	if !v.c.Has(ProxyRole) {
		return
	}
	if _, err := hba.Parse(v.c.PostgreSQL.HBA); err != nil {
		v.fail("postgresql.hba", err.Error(), "a line that the proxy of this host can hold against its clients", "on a host without the role proxy all of pg_hba.conf can be used")
	}
}

func (v *validator) join() {
	j := v.c.Join
	for _, a := range j.Addresses {
		if _, _, err := net.SplitHostPort(a); err != nil {
			v.fail("join.addresses", fmt.Sprintf("%q has no port", a), "HOST:PORT of any member", fmt.Sprintf("the members listen on port 7400 by default: %s:7400", a))
		}
	}
	if j.TokenFile != "" && j.SecretFile != "" {
		v.fail("join.secret_file", "given beside join.token_file", "one of the two", "")
	}
	if len(j.Addresses) == 0 && (j.TokenFile != "" || j.SecretFile != "") {
		key := "join.token_file"
		if j.TokenFile == "" {
			key = "join.secret_file"
		}
		v.fail(key, "given without join.addresses", "the address of any member", "")
	}
}
