package classify

import "bytes"

// work is a statement that may call functions on the way.
func (p *parser) work(w string) Kind {
	if w == "create" || w == "explain" {
		p.executes()
	}
	k := Primary
	switch w {
	case "create":
		if p.temporary() {
			k = p.undoable(temporaryObjects)
		}
		if p.defines() || !p.any("table") && !p.any("materialized") {
			return k
		}
		p.from = p.outside("as") // CREATE TABLE t (...) AS SELECT f()
	case "explain":
		if (p.any("create") || p.any("into")) && p.temporary() {
			k = p.undoable(temporaryObjects)
		}
	case "import":
		if p.temporary() {
			k = p.undoable(temporaryObjects)
		}
		return k
	case "alter":
		return k
	case "declare":
		if p.holds() {
			k = p.undoable("a cursor WITH HOLD")
		}
	case "copy":
		if p.from++; !p.is(p.from, "(") {
			return k
		}
	}
	for i := p.from; i < p.to; i++ {
		if t := p.kind(i); t == word || t == quoted {
			k = max(k, p.called(i))
		}
	}
	return k
}

// holds says whether a cursor outlives its transaction.
func (p *parser) holds() bool {
	for i := p.from; i < p.to; i++ {
		if p.word(i) == "with" && p.word(i+1) == "hold" {
			return true
		}
	}
	return false
}

// commitsBefore says whether a statement that begins with w cannot run in a transaction
// block, or has transactions of its own.
func (p *parser) commitsBefore(w string) bool {
	switch w {
	case "vacuum", "analyze", "reindex", "cluster":
		return true
	case "create", "drop", "alter":
		switch p.word(p.from + 1) {
		case "database", "tablespace", "system", "subscription":
			return true
		}
		return p.any("concurrently")
	case "commit", "rollback":
		return p.word(p.from+1) == "prepared"
	}
	return false
}

const temporaryObjects = "temporary objects"

// temporary says whether something in the statement may be a temporary one.
func (p *parser) temporary() bool {
	for i := p.from; i < p.to; i++ {
		switch p.kind(i) {
		case word:
			if w := p.word(i); w == "temp" || w == "temporary" || hasTemp(p.bytes(i)) {
				return true
			}
		case quoted:
			if b := p.bytes(i); b[0] != '"' || hasTemp(b[1:]) {
				return true
			}
		}
	}
	return false
}

// hasTemp says whether a name is that of a schema of temporary objects.
func hasTemp(name []byte) bool {
	const schema = "pg_temp"
	return len(name) >= len(schema) && bytes.EqualFold(name[:len(schema)], []byte(schema))
}
