package conv

import (
	"encoding/binary"
	"fmt"
	"maps"
	"strings"

	"manada/internal/proxy/wire"
)

// model is a PostgreSQL of a few statements: settings with transactions and
// savepoints, prepared statements that fold DateStyle in when they are parsed,
// sequences, temporary tables. It answers as PostgreSQL does, message by message.
type model struct {
	first   map[string]string // what it began with
	vars    map[string]string
	told    string // DateStyle as it was reported
	stmts   map[string]modelStmt
	portals map[string]modelStmt
	last    string // value of lastval()
	temp    bool

	tx       byte // I, T or E
	implicit bool
	skip     bool
	doomed   bool // its server is lost, and it does not know yet
	saved    []savedVars
	local    map[string]string

	in, out []byte
}

type modelStmt struct{ sql, style string }

// savedVars are the settings at the begin of a transaction (name "") or a savepoint,
// what those that are set for the transaction only are behind it, and whether there is a
// temporary table.
type savedVars struct {
	name        string
	vars, local map[string]string
	temp        bool
}

// newModel is one whose client began with a setting; "" for none.
func newModel(a string) *model {
	first := map[string]string{"datestyle": "iso"}
	if a != "" {
		first["a.a"] = a
	}
	return &model{first: first, vars: maps.Clone(first), told: "iso", stmts: map[string]modelStmt{}, portals: map[string]modelStmt{}, local: map[string]string{}, tx: 'I'}
}

// feed gives it bytes and returns what it answers.
func (m *model) feed(b []byte) []byte {
	m.in = append(m.in, b...)
	for len(m.in) >= headerLen {
		total := 1 + int(binary.BigEndian.Uint32(m.in[1:]))
		if len(m.in) < total {
			break
		}
		typ, body := m.in[0], m.in[headerLen:total]
		m.in = m.in[total:]
		m.message(typ, body)
	}
	out := m.out
	m.out = nil
	return out
}

func (m *model) say(typ byte, body string) { m.out = wire.AppendMessage(m.out, typ, []byte(body)) }

func (m *model) message(typ byte, body []byte) {
	if m.skip && typ != 'S' {
		return
	}
	f := strings.Split(string(body), "\x00")
	switch typ {
	case 'Q':
		delete(m.stmts, "")
		m.simple(f[0])
		m.ready()
		return
	case 'S':
		m.skip = false
		m.end(true)
		m.ready()
		return
	}
	if m.doomed && typ == 'B' && m.stmts[f[1]].sql == "commit" {
		m.fail(errLost)
		m.finish(false)
		m.skip = true
		return
	}
	if m.doomed && typ != 'C' && !(typ == 'P' && ends(f[1])) && !(typ == 'D' && m.dies(f)) && !(typ == 'B' && m.dies(f)) && typ != 'E' {
		m.fail(errLost)
		m.skip = true
		return
	}
	m.begin()
	switch err := m.extended(typ, f); {
	case err != nil:
		m.fail(err)
		m.skip = true
	}
}

var errLost = fmt.Errorf("40001 the transaction was rolled back: its server was lost, or has changed its role")

// dies says whether a Bind or Describe is of the end of a transaction.
func (m *model) dies(f []string) bool {
	if strings.HasPrefix(f[0], "S") {
		return ends(m.stmts[f[0][1:]].sql)
	}
	return len(f) > 1 && ends(m.stmts[f[1]].sql)
}

// doom ends a transaction without a word.
func (m *model) doom() {
	if m.tx == 'T' || m.tx == 'E' {
		m.doomed = m.tx == 'T'
		m.vars, m.temp = maps.Clone(m.saved[0].vars), m.saved[0].temp
		m.saved, m.local = m.saved[:1], map[string]string{}
		clear(m.portals)
	}
}

func (m *model) extended(typ byte, f []string) error {
	switch typ {
	case 'P':
		if m.tx == 'E' && !ends(f[1]) {
			return errAborted
		}
		if _, taken := m.stmts[f[0]]; taken && f[0] != "" {
			return fmt.Errorf("42P05 prepared statement \"%s\" already exists", f[0])
		}
		m.stmts[f[0]] = modelStmt{f[1], m.vars["datestyle"]}
		m.say('1', "")
	case 'B':
		s, ok := m.stmts[f[1]]
		if !ok {
			return fmt.Errorf("26000 prepared statement \"%s\" does not exist", f[1])
		}
		if m.tx == 'E' && !ends(s.sql) {
			return errAborted
		}
		m.portals[f[0]] = s
		m.say('2', "")
	case 'D':
		if f[0][0] == 'S' {
			if _, ok := m.stmts[f[0][1:]]; !ok {
				return fmt.Errorf("26000 prepared statement \"%s\" does not exist", f[0][1:])
			}
			if m.tx == 'E' {
				return errAborted
			}
			m.say('t', "\x00\x00")
		}
		m.say('n', "")
	case 'E':
		s, ok := m.portals[f[0]]
		if !ok {
			return fmt.Errorf("34000 portal \"%s\" does not exist", f[0])
		}
		return m.run(s, false)
	case 'C':
		if f[0][0] == 'S' {
			delete(m.stmts, f[0][1:])
		} else {
			delete(m.portals, f[0][1:])
		}
		m.say('3', "")
	}
	return nil
}

var errAborted = fmt.Errorf("25P02 current transaction is aborted")

func ends(sql string) bool { return strings.HasPrefix(sql, "rollback") || sql == "commit" }

// begin starts an implicit transaction.
func (m *model) begin() {
	if m.tx == 'I' && !m.implicit {
		m.implicit = true
		m.save("")
	}
}

func (m *model) save(name string) {
	m.saved = append(m.saved, savedVars{name, maps.Clone(m.vars), maps.Clone(m.local), m.temp})
}

// set gives a setting a value; "" takes it away.
func (m *model) set(name, value string) {
	if delete(m.vars, name); value != "" {
		m.vars[name] = value
	}
}

// end ends it.
func (m *model) end(good bool) {
	if m.implicit {
		m.implicit = false
		m.finish(good)
	}
}

// finish ends any transaction.
func (m *model) finish(good bool) {
	if !good {
		m.vars, m.temp = m.saved[0].vars, m.saved[0].temp
	} else {
		for name, v := range m.local {
			m.set(name, v)
		}
	}
	m.local = map[string]string{}
	m.saved, m.tx, m.implicit, m.doomed = nil, 'I', false, false
	clear(m.portals)
}

func (m *model) simple(sql string) {
	parts := strings.Split(strings.TrimRight(sql, "\n;"), ";")
	m.begin()
	for _, p := range parts {
		p = strings.TrimSpace(p)
		switch {
		case m.doomed && p == "commit":
			m.fail(errLost)
			m.finish(false)
			return
		case m.doomed && p != "rollback":
			m.fail(errLost)
			return
		case m.tx == 'E' && !ends(p):
			m.fail(errAborted)
			return
		}
		if err := m.run(modelStmt{p, m.vars["datestyle"]}, len(parts) > 1); err != nil {
			m.fail(err)
			return
		}
	}
	m.end(true)
}

func (m *model) fail(err error) {
	m.say('E', "SERROR\x00VERROR\x00C"+err.Error()[:5]+"\x00M"+err.Error()[6:]+"\x00\x00")
	switch {
	case m.implicit:
		m.end(false)
	case m.tx == 'T':
		m.tx = 'E'
	}
	m.doomed = false
}

func (m *model) ready() {
	if now := m.vars["datestyle"]; now != m.told {
		m.told = now
		m.say('S', "DateStyle\x00"+now+"\x00")
	}
	m.say('Z', string(m.tx))
}

func (m *model) rows(v string) {
	m.say('D', v)
	m.say('C', "SELECT 1\x00")
}

// run executes one statement.
func (m *model) run(s modelStmt, several bool) error {
	f := strings.Fields(s.sql)
	tag := strings.ToUpper(f[0])
	switch {
	case f[0] == "begin":
		if m.tx == 'I' {
			m.tx, m.implicit = 'T', false
			if m.saved == nil {
				m.save("")
			}
		}
	case f[0] == "commit", s.sql == "rollback":
		good := f[0] == "commit" && m.tx != 'E'
		if !good {
			tag = "ROLLBACK"
		}
		if m.tx != 'I' || m.implicit {
			m.finish(good)
		}
	case f[0] == "savepoint":
		m.save(f[1])
	case f[0] == "release", f[0] == "rollback":
		return m.mark(f[0] == "rollback", f[len(f)-1], tag)
	case tag == "SET":
		m.setting(strings.Fields(strings.NewReplacer(`"`, "", "'", "").Replace(s.sql))[1:])
	case f[0] == "reset" && f[1] == "all":
		m.vars, m.local = maps.Clone(m.first), map[string]string{}
	case strings.EqualFold(f[0], "reset"):
		name := strings.ReplaceAll(f[1], `"`, "")
		m.set(name, m.first[name])
		delete(m.local, name)
	case strings.EqualFold(s.sql, "discard all"):
		if m.tx != 'I' || several {
			return fmt.Errorf("25001 DISCARD ALL cannot run inside a transaction block")
		}
		m.vars, m.last, m.temp = maps.Clone(m.first), "", false
		m.deallocateAll()
		m.saved, m.implicit = nil, false
		tag = "DISCARD ALL"
	case s.sql == "DISCARD SEQUENCES":
		m.last, tag = "", s.sql
	default:
		return m.query(f, s, tag)
	}
	m.say('C', tag+"\x00")
	return nil
}

// deallocateAll does not touch the unnamed statement.
func (m *model) deallocateAll() {
	maps.DeleteFunc(m.stmts, func(name string, _ modelStmt) bool { return name != "" })
}

// setting is SET, behind that word.
func (m *model) setting(f []string) {
	local := strings.EqualFold(f[0], "local")
	if local {
		f = f[1:]
	}
	name, value := f[0], f[2]
	if value == "default" {
		value = m.first[name]
	}
	switch {
	case !local:
		m.set(name, value)
		delete(m.local, name)
	case m.tx == 'T' || m.implicit:
		if _, twice := m.local[name]; !twice {
			m.local[name] = m.vars[name]
		}
		m.set(name, value)
	}
}

// mark is ROLLBACK TO and RELEASE.
func (m *model) mark(back bool, name, tag string) error {
	for i := len(m.saved) - 1; i > 0; i-- {
		if m.saved[i].name != name {
			continue
		}
		if back {
			m.vars, m.local, m.temp, m.saved, m.tx = maps.Clone(m.saved[i].vars), maps.Clone(m.saved[i].local), m.saved[i].temp, m.saved[:i+1], 'T'
		} else {
			m.saved = m.saved[:i]
		}
		m.say('C', tag+"\x00")
		return nil
	}
	return fmt.Errorf("3B001 savepoint \"%s\" does not exist", name)
}

// query is what returns rows, and the rest.
func (m *model) query(f []string, s modelStmt, tag string) error {
	switch {
	case f[0] == "show":
		m.rows(f[1] + " is " + m.vars[f[1]])
	case strings.HasPrefix(s.sql, "select '01/02/2024'"):
		m.rows(s.style)
	case s.sql == "select lastval()":
		if m.last == "" {
			return fmt.Errorf("55000 lastval is not yet defined in this session")
		}
		m.rows("last is " + m.last)
	case f[0] == "insert":
		m.last = f[4]
		m.say('C', "INSERT 0 1\x00")
	case f[0] == "update": // it may have inserted by a trigger, and has not
		m.say('C', "UPDATE 1\x00")
	case s.sql == "select 1/0":
		return fmt.Errorf("22012 division by zero")
	case s.sql == "create temp table x (a int)":
		if m.temp {
			return fmt.Errorf("42P07 it exists")
		}
		m.temp = true
		m.say('C', "CREATE TABLE\x00")
	case s.sql == "select a from x":
		m.rows(fmt.Sprint("temporary: ", m.temp))
	case strings.EqualFold(f[0], "deallocate"):
		name := strings.ReplaceAll(f[1], `"`, "")
		if f[1] == "all" {
			m.deallocateAll()
			tag += " ALL"
		} else if _, ok := m.stmts[name]; !ok {
			return fmt.Errorf("26000 prepared statement \"%s\" does not exist", name)
		}
		delete(m.stmts, name)
		m.say('C', tag+"\x00")
	default:
		return fmt.Errorf("42601 syntax error at or near \"%s\"", f[0])
	}
	return nil
}
