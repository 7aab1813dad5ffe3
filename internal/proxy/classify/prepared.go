package classify

import "strings"

// deallocate is DEALLOCATE [PREPARE] {name | ALL}.
func (p *parser) deallocate() Statement {
	i := p.from + 1
	if p.word(i) == "prepare" && i+1 < p.to {
		i++
	}
	if p.word(i) == "all" {
		p.uses = append(p.uses, Use{What: DropsAll, Nth: p.nth})
	} else {
		p.prepared(Drops, i)
	}
	return Statement{Kind: Forget}
}

// executes finds EXECUTE of a prepared statement behind EXPLAIN and CREATE TABLE AS.
func (p *parser) executes() {
	for i := p.from + 1; i < p.to; i++ {
		if p.word(i) != "execute" {
			continue
		}
		switch p.word(i - 1) {
		case "as", "explain", "analyze", "verbose":
		default:
			if !p.is(i-1, ")") {
				continue
			}
		}
		p.prepared(Uses, i+1)
	}
}

// prepared notes the name at i. PostgreSQL cuts longer ones than it keeps.
func (p *parser) prepared(what What, i int) {
	const most = 63
	if k := p.kind(i); k != word && k != quoted || k == quoted && p.bytes(i)[0] != '"' {
		return
	}
	b := p.bytes(i)
	name := strings.ToLower(string(b))
	if b[0] == '"' {
		name = unquote(b[1 : len(b)-1])
	}
	if len(name) <= most {
		p.uses = append(p.uses, Use{what, name, Span{p.toks[i].at, p.toks[i].to}, p.nth})
	}
}
