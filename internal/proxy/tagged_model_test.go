package proxy_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// settings are what clients set, in the order in which look shows them. Only a function
// or a trigger sets app.hidden.
var settings = []string{"app.tenant", "application_name", "DateStyle", "TimeZone", "IntervalStyle", "search_path", "work_mem",
	"lock_timeout", "default_transaction_read_only", "role", "app.hidden"}

// look asks for all that a session has, in one line. own is a table of each client's
// schema; who has another search path finds nobody's.
const look = `select concat_ws('|', coalesce(current_setting('app.tenant', true), ''), current_setting('application_name'), current_setting('DateStyle'),
	current_setting('TimeZone'), current_setting('IntervalStyle'), current_setting('search_path'), current_setting('work_mem'), current_setting('lock_timeout'),
	current_setting('default_transaction_read_only'), current_setting('role'), coalesce(current_setting('app.hidden', true), ''),
	(select who from own), (select count(*) from pg_class where relname = 'tmp' and relnamespace = pg_my_temp_schema()),
	(select coalesce(string_agg(c, ','), '') from pg_listening_channels() c), (select coalesce(string_agg(name, ','), '') from pg_cursors where is_holdable),
	(select coalesce(string_agg(objid::text, ',' order by objid), '') from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()),
	'2024-02-01'::text::date, interval '1 day 2 hours')`

// kept is what follows transactions: it goes back when one is rolled back.
type kept struct {
	session, local map[string]string // settings, and those of SET LOCAL over them
	temp           bool              // the temporary table tmp is there
}

func (k kept) clone() kept {
	return kept{maps.Clone(k.session), maps.Clone(k.local), k.temp}
}

// state is what a client must find, and nothing else: all that it has done, and what
// it began with.
type state struct {
	id    int
	begun map[string]string
	kept
	saved    []kept // at BEGIN and at each savepoint
	readOnly bool   // the transaction is, since it began
	listens  bool
	cursor   bool
	locks    []int
	last     string            // of the sequence
	stmts    map[string]string // of the protocol, by name
	prepared string            // SQL's PREPARE q
	lost     bool              // its transaction is, with all of its savepoints
	sticks   bool              // it has something that keeps its connection
}

func newState(id int, begun map[string]string) *state {
	return &state{id: id, begun: begun, kept: kept{session: maps.Clone(begun), local: map[string]string{}}, stmts: map[string]string{}}
}

func (s *state) get(name string) string {
	if v, ok := s.local[name]; ok {
		return v
	}
	return s.session[name]
}

func (s *state) set(name, value string, local bool) {
	if local {
		s.local[name] = value
		return
	}
	delete(s.local, name)
	s.session[name] = value
}

func (s *state) inTx() bool { return len(s.saved) > 0 }

// mayNotWrite says whether the next statement is refused where it writes.
func (s *state) mayNotWrite() bool {
	if s.inTx() {
		return s.readOnly
	}
	return s.get("default_transaction_read_only") == "on"
}

func (s *state) begin() {
	s.readOnly = s.get("default_transaction_read_only") == "on"
	s.saved = []kept{s.kept.clone()}
}

func (s *state) savepoint() { s.saved = append(s.saved, s.kept.clone()) }

// rollbackTo goes back to the last savepoint, which stays.
func (s *state) rollbackTo() { s.kept = s.saved[len(s.saved)-1].clone() }

func (s *state) rollback() {
	s.kept, s.saved, s.lost = s.saved[0], nil, false
}

func (s *state) commit() {
	s.local, s.saved = map[string]string{}, nil
}

func (s *state) discardAll() {
	*s = *newState(s.id, s.begun)
}

// resetAll leaves the role alone.
func (s *state) resetAll() {
	for _, name := range settings {
		if name != "role" {
			s.set(name, s.begun[name], false)
		}
	}
}

var (
	dates = map[string]string{"ISO, MDY": "2024-02-01", "ISO, DMY": "2024-02-01", "German, DMY": "01.02.2024", "SQL, DMY": "01/02/2024", "SQL, MDY": "02/01/2024", "Postgres, DMY": "01-02-2024"}
	spans = map[string]string{"postgres": "1 day 02:00:00", "iso_8601": "P1DT2H", "sql_standard": "1 2:00:00", "postgres_verbose": "@ 1 day 2 hours"}
)

// looks is the answer to look.
func (s *state) looks() string {
	var out []string
	for _, name := range settings {
		out = append(out, s.get(name))
	}
	who := "nobody"
	if strings.HasPrefix(s.get("search_path"), "s") {
		who = fmt.Sprint("client ", s.id)
	}
	word := func(is bool, yes string) string {
		if is {
			return yes
		}
		return ""
	}
	locks := []string{}
	slices.Sort(s.locks)
	for _, l := range s.locks {
		locks = append(locks, fmt.Sprint(l))
	}
	temp := "0"
	if s.temp {
		temp = "1"
	}
	return strings.Join(append(out, who, temp, word(s.listens, s.channel()), word(s.cursor, "h"), strings.Join(locks, ","),
		dates[s.get("DateStyle")], spans[s.get("IntervalStyle")]), "|")
}

func (s *state) channel() string { return fmt.Sprint("ch", s.id) }

// reported is what the client's driver knows of its settings.
var reported = []string{"application_name", "DateStyle", "TimeZone", "IntervalStyle", "is_superuser"}

func (s *state) tells(name string) string {
	if name != "is_superuser" {
		return s.get(name)
	}
	if s.get("role") == "none" {
		return "on"
	}
	return "off"
}
