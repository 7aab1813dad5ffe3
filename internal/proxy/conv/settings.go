package conv

import (
	"bytes"
	"slices"
	"strings"

	"manada/internal/proxy/classify"
)

// set follows the settings of a client through its transactions.
type set struct {
	first vars     // of its start-up packet, which its servers were not given
	vars  vars     // of the session, but for the transaction under way
	ops   []change // of that transaction, in order
	marks []mark   // its savepoints

	// The server always sends warnings, because one of them says that a commit was
	// not replicated. A client that has set client_min_messages above warning does
	// not get the others.
	hides   bool // now
	session bool // outside of the transaction
	began   bool // at log-in
	watched bool // it may be otherwise than at log-in

	rolledBack bool   // since the last ReadyForQuery, and nobody knows how far
	pin        string // what was committed since somebody asked that only one server has
	local      bool   // something was set in this transaction, if only for itself
}

// change is what a statement did to the settings, or left behind in the session.
type change struct {
	pin       string // why only one server has it
	all       bool   // RESET ALL
	name, sql string // sql "": as the server gave it at log-in
	level     classify.Level
	local     bool // for the transaction only
}

// mark is a savepoint: how much had changed before it.
type mark struct {
	name string
	at   int
}

// maxChanges bounds what is remembered of one transaction.
const maxChanges = 1000

// note applies what a statement has done to the settings. It says whether there is
// too much to remember.
func (s *set) note(n *note) (full bool) {
	is := n.about
	if is.Transactional {
		s.ops = append(s.ops, change{pin: is.Why})
	}
	op := change{level: is.Level, local: is.Local}
	switch {
	case is.Kind == classify.Settings:
		op = s.gives(op, classify.Setting{Name: is.Setting, Default: is.Default}, n.sql)
	case n.several != nil:
		for i, one := range is.Several {
			s.ops = append(s.ops, s.gives(change{}, one, n.several[i]))
		}
	default:
		switch is.Mark {
		case classify.MarkSet:
			s.marks = append(s.marks, mark{is.MarkName, len(s.ops)})
		case classify.MarkBack, classify.MarkGone:
			s.back(is.MarkName, is.Mark == classify.MarkBack)
		}
		if is.Level == classify.LevelKept {
			return len(s.ops)+len(s.marks) > maxChanges
		}
	}
	s.ops = append(s.ops, op)
	s.now()
	return len(s.ops) > maxChanges
}

// gives is op with a setting that a statement gives.
func (s *set) gives(op change, one classify.Setting, sql string) change {
	op.all, op.name, op.sql = one.Name == "", one.Name, sql
	if one.Default {
		if op.sql = s.first.get(op.name); op.sql == "" && custom(op.name) {
			op.sql = sql
		}
	}
	return op
}

// discarded: DISCARD ALL is for good at once, whatever becomes of its batch. What the
// client has asked for at its log-in the server lacks, until that was given again.
func (s *set) discarded(n *note, l *Link) {
	s.vars, l.vars = s.first, nil
	s.ops, s.marks, s.session = s.ops[:0], s.marks[:0], s.began
	if n.again != nil {
		s.ops = append(s.ops, change{all: true})
	}
	s.now()
}

// back goes back to a savepoint, or forgets it.
func (s *set) back(name string, undo bool) {
	for i := len(s.marks) - 1; i >= 0; i-- {
		if s.marks[i].name != name {
			continue
		}
		if undo {
			s.marks, s.ops = s.marks[:i+1], s.ops[:s.marks[i].at]
			s.rolledBack = false
			s.now()
		} else {
			s.marks = s.marks[:i]
		}
		return
	}
}

// completed notes the tag of a command: it may end a transaction, or a part of it. whole
// says that it is known not to be a part.
func (s *set) completed(tag []byte, whole bool, l *Link) {
	switch {
	case bytes.HasPrefix(tag, tagRollback) && whole:
		s.undo()
	case bytes.HasPrefix(tag, tagRollback):
		s.rolledBack = true
	case bytes.HasPrefix(tag, tagCommit), bytes.HasPrefix(tag, tagPrepare):
		s.commit(l)
	}
}

var tagRollback, tagCommit, tagPrepare = []byte("ROLLBACK\x00"), []byte("COMMIT\x00"), []byte("PREPARE TRANSACTION\x00")

// ready notes the end of a unit. It says whether something is in doubt: nobody
// knows what a rollback to a savepoint has taken back.
func (s *set) ready(status byte, failed bool, l *Link) (doubt bool) {
	switch {
	case s.rolledBack:
		for _, op := range s.ops {
			doubt = doubt || status != 'I' && (op.all || op.name+op.pin != "")
		}
		s.undo()
	case status != 'I':
	case failed:
		s.undo()
	default:
		s.commit(l)
	}
	if status == 'I' {
		s.local = false
	}
	s.rolledBack = false
	return doubt
}

// undo forgets what the transaction has changed.
func (s *set) undo() {
	if len(s.ops)+len(s.marks) > 0 {
		s.ops, s.marks = s.ops[:0], s.marks[:0]
		s.now()
	}
}

// commit makes what the transaction has changed the session's, and the server's.
func (s *set) commit(l *Link) {
	if len(s.ops)+len(s.marks) == 0 {
		return
	}
	for _, op := range s.ops {
		switch {
		case op.pin != "":
			s.pin = op.pin
		case op.local:
			continue
		case op.all:
			s.vars = s.vars.reset(s.first)
			l.vars = s.vars
		case op.name != "":
			s.both(l, op.name, l.asReported(op.name, op.sql))
		}
		s.session = op.hides(s.session, s.began)
	}
	s.undo()
	s.now()
}

// asReported is sql, but for a setting that the server reports its whole value: half
// a DateStyle may have changed nothing, and then nothing new is reported.
func (l *Link) asReported(name, sql string) string {
	if sql == "" || l.reported == nil || !slices.Contains(carried, name) {
		return sql
	}
	for n, value := range l.reported.values {
		if strings.EqualFold(n, name) {
			return giving(name, value)
		}
	}
	return sql
}

// both gives a setting a value for the client and for its server.
func (s *set) both(l *Link, name, sql string) {
	alike := same(s.vars, l.vars)
	s.vars = s.vars.with(name, sql)
	if alike {
		l.vars = s.vars
	} else {
		l.vars = l.vars.with(name, sql)
	}
}

// now finds whether the client gets warnings.
func (s *set) now() {
	s.hides = s.session
	for _, op := range s.ops {
		s.hides = op.hides(s.hides, s.began)
	}
}

// hides is whether warnings are hidden behind the change.
func (op change) hides(before, began bool) bool {
	switch op.level {
	case classify.LevelHides:
		return true
	case classify.LevelShows:
		return false
	case classify.LevelReset:
		return began
	}
	return before
}

// carried are the settings that PostgreSQL reports and that a client may have set
// in ways that no text shows.
var carried = []string{"application_name", "client_encoding", "datestyle", "intervalstyle", "search_path", "timezone"}

// news notes what the server has reported in a transaction, once it has ended. Half
// a DateStyle is whole in what is reported.
func (c *Conv) news(l *Link) {
	for _, name := range l.news {
		if key := strings.ToLower(name); (c.eager() || c.pooled()) && slices.Contains(carried, key) {
			c.set.both(l, key, giving(key, l.reported.values[name]))
		}
	}
	l.news = l.news[:0]
}

// folds are the settings by which PostgreSQL reads a text when it is prepared, and by which
// functions answer that it takes for immutable: the same text under others is another
// statement. Why each is here, and others are not: testdata/folds.txt of package proxy.
var folds = []string{"role", "transform_null_equals", "array_nulls", "xmloption", "standard_conforming_strings", "backslash_quote", "search_path",
	"client_encoding", "datestyle", "intervalstyle", "timezone", "timezone_abbreviations", "lc_monetary",
	"extra_float_digits", "quote_all_identifiers", "bytea_output"}

// fold writes them down. Not ok: what they are is not known, as of a client that keeps its
// server because it may have done anything.
func (c *Conv) fold(b []byte, l *Link) ([]byte, bool) {
	for _, v := range c.set.vars {
		if slices.Contains(folds, v.name) {
			b = append(append(b, v.sql...), 0)
		}
	}
	_, stays := c.stays()
	return append(b, l.reported.fold...), !stays && !c.set.local && len(c.set.ops) == 0
}
