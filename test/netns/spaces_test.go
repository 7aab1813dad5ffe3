package netns

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"manada/internal/cluster"
)

// tablespaces: a node with two of them is made anew, rewound, and made anew once
// more, each host with its own below the same paths. One of them is like a file
// system of its own: it has something in it that is not PostgreSQL's.
func (l *lab) tablespaces(t *testing.T) {
	first := l.healthy("witness").Primary
	second := other(first)
	for _, h := range []string{first, second} {
		l.hosts[h].must("mkdir -p /var/lib/manada/fast /var/lib/manada/slow/lost+found; chown -R postgres: /var/lib/manada/fast /var/lib/manada/slow; chmod 700 /var/lib/manada/fast /var/lib/manada/slow")
	}
	for k, name := range []string{"fast", "slow"} {
		l.superuser("", fmt.Sprintf("create tablespace %s location '/var/lib/manada/%[1]s'", name))
		l.superuser("", fmt.Sprintf("create table public.in_%s tablespace %[1]s as select g, repeat('x', 100) from generate_series(1, %d) g", name, 20000*(k+1)))
	}
	rows := func(when string) {
		t.Helper()
		l.caughtUp(t)
		for _, to := range []string{"", "--read-only"} {
			got := l.superuser(to, "select (select count(*) from public.in_fast) || ' ' || (select count(*) from public.in_slow) || ' ' || "+
				"(select string_agg(pg_tablespace_location(oid), ' ' order by spcname) from pg_tablespace where spcname in ('fast', 'slow'))")
			if want := "20000 40000 /var/lib/manada/fast /var/lib/manada/slow"; got != want {
				t.Errorf("%s: manada uri %s has %q, not %q", when, to, got, want)
			}
		}
		for _, node := range []string{first, second} {
			l.hosts[node].must("test -d /var/lib/manada/slow/lost+found; ! ls -d /var/lib/manada/*/.manada.clone 2>/dev/null")
		}
	}
	rows("created")
	reinit := func(node string) {
		t.Helper()
		l.hosts[node].must("manada reinit " + node + " --yes")
		l.await(node, 60*time.Second, node+" to be back", func(s cluster.Status) bool { return slices.Contains(s.Sync, node) })
	}
	reinit(second)
	rows("cloned")
	// The primary's host dies; it comes back with WAL that nobody has, and is rewound.
	l.hosts[first].link("down")
	l.await(second, 20*time.Second, "a takeover", func(s cluster.Status) bool { return s.Primary == second })
	l.hosts[first].link("up")
	l.await(second, 60*time.Second, "the old primary to be back", func(s cluster.Status) bool { return slices.Contains(s.Sync, first) })
	rows("rewound")
	reinit(first)
	rows("cloned from the other")
	if h := l.hosts["witness"].must("manada history"); strings.Count(h, "was rewound from") == 0 || strings.Count(h, "was cloned from") < 2 {
		t.Errorf("it was not rewound, or not cloned:\n%s", h)
	}
	for _, name := range []string{"fast", "slow"} {
		l.superuser("", "drop table public.in_"+name)
		l.superuser("", "drop tablespace "+name)
	}
	l.caughtUp(t)
}

// superuser types a statement on db1, at the end of `manada uri`.
func (l *lab) superuser(to, sql string) string {
	l.t.Helper()
	return strings.TrimSpace(l.hosts["db1"].must(fmt.Sprintf("psql \"$(manada uri %s)\" -XAtqc \"%s\"", to, sql)))
}
