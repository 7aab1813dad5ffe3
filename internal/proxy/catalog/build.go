package catalog

import (
	"maps"
	"slices"
	"strings"

	"manada/internal/proxy/classify"
)

// object is something in the catalogs: the OID of its catalog, and its own.
type object struct{ class, oid uint32 }

// Catalogs and what of them counts.
const (
	classProc  = 1255
	classRel   = 1259
	classType  = 1247
	classCast  = 2605
	classOper  = 2617
	classEvent = 3466
)

// graph is what the query reads.
type graph struct {
	names     map[object]string
	users     map[object][]object // what depends on it
	functions map[object]function
	builtin   map[string]bool // names of dangerous functions that are built in
	harmless  map[string]bool // and of those of which none is
	symbols   map[string]bool // what these run: names of C functions
	bad       []object        // known to be dangerous: their trees name such a function
	plain     map[object]bool // operators and casts between built-in types only
}

func newGraph() *graph {
	return &graph{names: map[object]string{}, users: map[object][]object{}, functions: map[object]function{}, builtin: map[string]bool{}, harmless: map[string]bool{}, symbols: map[string]bool{}, plain: map[object]bool{}}
}

// function is one that is not built in.
type function struct{ language, extension, source string }

// closure goes from what is dangerous to what reaches it.
type closure struct {
	*graph
	seen  map[object]bool
	queue []object
	names Names
	// mentions are the functions whose texts have a word, and calls those that have
	// it where a function's name stands.
	mentions, calls map[string][]object
	operating       []object // functions whose texts have operators
}

// build makes the set.
func (g *graph) build() *Names {
	c := &closure{graph: g, seen: map[object]bool{}, names: Names{set: map[string]struct{}{}}, mentions: map[string][]object{}, calls: map[string][]object{}}
	for _, f := range slices.SortedFunc(maps.Keys(g.functions), byOID) {
		if c.judge(f, g.functions[f]) {
			c.add(f)
		}
	}
	for _, o := range g.bad {
		c.add(o)
	}
	for len(c.queue) > 0 {
		o := c.queue[len(c.queue)-1]
		c.queue = c.queue[:len(c.queue)-1]
		c.spread(o)
	}
	c.names.harmless, c.names.builtin = c.others(), c.builtin
	return &c.names
}

// others are the names of functions that are not dangerous.
func (c *closure) others() map[string]struct{} {
	out := make(map[string]struct{}, len(c.harmless)+len(c.functions))
	for name := range c.harmless {
		out[name] = struct{}{}
	}
	for f := range c.functions {
		out[c.graph.names[f]] = struct{}{}
	}
	for name := range c.builtin {
		delete(out, name)
	}
	for name := range c.names.set {
		delete(out, name)
	}
	return out
}

func byOID(a, b object) int { return int(int64(a.oid) - int64(b.oid)) }

func (c *closure) add(o object) {
	if !c.seen[o] {
		c.seen[o] = true
		c.queue = append(c.queue, o)
	}
}

// spread names a dangerous object and goes on to what reaches it.
func (c *closure) spread(o object) {
	for _, u := range c.users[o] {
		c.add(u)
	}
	name, named := c.graph.names[o]
	switch o.class {
	case classEvent:
		for _, w := range ddl {
			c.call(w, false)
		}
	case classCast:
		c.names.all = c.names.all || c.plain[o]
	case classOper:
		if c.plain[o] {
			c.names.operators = append(c.names.operators, name)
			c.names.all = c.names.all || implied[name]
			c.addAll(c.operating) // of which it is not known which ones
		}
	case classProc:
		if named {
			c.call(name, true)
		}
	case classRel, classType:
		if named {
			c.call(name, false)
		}
	}
}

// call puts a name into the set, and those functions whose texts use it.
func (c *closure) call(name string, function bool) {
	c.names.set[name] = struct{}{}
	if strings.ContainsFunc(name, func(r rune) bool { return r >= 0x80 || r == '"' }) {
		c.names.odd = true
	}
	if function {
		c.addAll(c.calls[name])
		return
	}
	c.addAll(c.mentions[name])
}

func (c *closure) addAll(os []object) {
	for _, o := range os {
		c.add(o)
	}
}

// judge says whether a function may leave something behind, by itself. What its text
// uses is remembered, for the others.
func (c *closure) judge(o object, f function) bool {
	if f.extension != "" {
		except, known := extensions[f.extension]
		return !known || except[c.graph.names[o]]
	}
	switch f.language {
	case "internal":
		return c.symbols[f.source]
	case "sql", "plpgsql":
		return c.read(o, f.source)
	}
	return true
}

// read goes through a function's text.
func (c *closure) read(o object, source string) (bad bool) {
	last := ";" // the word or sign before
	src := []byte(source)
	whole := classify.Tokens(src, func(t classify.Token) {
		name := t.Name(src)
		switch {
		case t.Operator:
			c.operating = append(c.operating, o)
		case t.Quoted && name == "", tells(name, last, t), c.builtin[name] && (t.Called || last == "."):
			bad = true
		case name != "":
			c.mentions[name] = append(c.mentions[name], o)
			if t.Called || last == "." {
				c.calls[name] = append(c.calls[name], o)
			}
		}
		if last = name; name == "" {
			last = string(src[t.From:t.To])
		}
	})
	return bad || !whole
}

// tells says whether a word says by itself that something may be left behind, or
// that a text is run that is not there to be read.
func tells(name, before string, t classify.Token) bool {
	if t.Quoted {
		return name == "pg_temp"
	}
	switch name {
	case "execute", "pg_temp":
		return true
	case "temp", "temporary":
		return temporary[before]
	case "hold":
		return before == "with"
	}
	return telling[name] && (before == ";" || starters[before])
}
