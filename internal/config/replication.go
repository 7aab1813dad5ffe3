package config

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"manada/internal/cluster"
)

const replicationKey = "postgresql.replication"

// replicators reads the list of roles that may replicate.
func (r *reader) replicators(l leaf, n *yaml.Node, bad func(*yaml.Node, string)) {
	if n.Kind != yaml.SequenceNode {
		bad(n, describe(n))
		return
	}
	var all []cluster.Replicator
	for _, e := range n.Content {
		e = resolve(e)
		if e.Kind != yaml.MappingNode {
			bad(e, describe(e))
			continue
		}
		all = append(all, r.replicator(e, bad))
	}
	l.value.Set(reflect.ValueOf(all))
}

func (r *reader) replicator(n *yaml.Node, bad func(*yaml.Node, string)) (x cluster.Replicator) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], resolve(n.Content[i+1])
		var list []string
		to := leaf{path: replicationKey, value: reflect.ValueOf(&list).Elem()}
		r.list(to, v, bad)
		switch k.Value {
		case "role":
			x.Role = strings.Join(list, ",")
		case "from":
			x.From = list
		case "databases":
			x.Databases = list
		default:
			r.fail(k.Line, replicationKey, fmt.Sprintf("unknown key %q%s", k.Value, didYouMean(k.Value, []string{"role", "from", "databases"})), "role, from and databases", "")
		}
	}
	return x
}

func replicatorsText(all []cluster.Replicator) string {
	var out []string
	for _, x := range all {
		s := fmt.Sprintf("%s from %s", x.Role, strings.Join(x.From, ", "))
		if len(x.Databases) > 0 {
			s += " in " + strings.Join(x.Databases, ", ")
		}
		out = append(out, s)
	}
	return strings.Join(out, "; ")
}

// replication checks the roles that may replicate, and from where members may.
func (v *validator) replication() {
	seen := map[string]bool{}
	for _, x := range v.c.PostgreSQL.Replication {
		who := fmt.Sprintf("role %q: ", x.Role)
		switch {
		case !cluster.CheckHBAName(x.Role):
			v.fail(replicationKey, fmt.Sprintf("%q is no name of a role", x.Role), "role: NAME", "")
		case strings.HasPrefix(x.Role, "manada_"):
			v.fail(replicationKey, who+"Manada's own roles are not listed", "a role of yours", "remove the entry")
		case x.Role == cluster.RoleSuperuser:
			v.fail(replicationKey, who+"a superuser needs no entry, and with one it could log in from nowhere else", "a role of its own for what replicates",
				"or a line of postgresql.hba such as  hostssl replication postgres 10.0.0.9/32 scram-sha-256")
		case seen[x.Role]:
			v.fail(replicationKey, who+"stands twice", "", "from and databases take lists")
		case len(x.From) == 0:
			v.fail(replicationKey, who+"from is missing", "the addresses that it comes from", "for example  from: [10.0.0.9, 10.1.0.0/16]")
		}
		seen[x.Role] = true
		v.addresses(replicationKey, who, x.From)
		if i := slices.IndexFunc(x.Databases, func(d string) bool { return !cluster.CheckHBAName(d) }); i >= 0 {
			v.fail(replicationKey, who+fmt.Sprintf("%q is no name of a database", x.Databases[i]), "names of databases", "")
		}
	}
	v.addresses("postgresql.members_from", "", v.c.PostgreSQL.MembersFrom)
}

func (v *validator) addresses(key, who string, list []string) {
	for _, a := range list {
		if p, err := netip.ParsePrefix(cluster.HBAAddress(a)); err != nil || p != p.Masked() {
			v.fail(key, who+fmt.Sprintf("%q is neither an IP address nor a network", a), "such as 10.0.0.9 or 10.1.0.0/16", "")
		}
	}
}
