package verb

import (
	"net/http"
	"path"
	"strings"
	"time"
)

// Who says who may ask.
type Who uint8

// From the most to the fewest.
const (
	Anyone  Who = iota // whoever reaches the port: what is asked proves itself
	Hosts              // hosts of the herd, also those with nothing but a proxy
	Members            // data and witness hosts
	Local              // programs of this host, over its socket
)

// String says who that is.
func (w Who) String() string {
	return [...]string{"anyone", "hosts of the herd", "data and witness hosts", "programs of this host"}[w]
}

// Danger is what a verb does to the applications of the herd.
type Danger string

const (
	Harmless Danger = "none"  // they notice nothing
	Holds    Danger = "holds" // they wait, or are not let in
	Ends     Danger = "ends"  // connections are ended
	Loses    Danger = "loses" // what was committed may be gone
)

// Kind of an argument's value.
type Kind uint8

const (
	Text Kind = iota
	Flag
	Number
	List   // of texts
	Object // its handler looks into it
)

// String names it, as errors do.
func (k Kind) String() string {
	return [...]string{"a text", "true or false", "a number", "a list of texts", "an object"}[k]
}

// Argument is a field of the JSON object that a verb takes.
type Argument struct {
	Name   string
	Is     Kind
	Needed bool
	Of     []string // the texts that it may be; nil: any
	As     string   // how commands write it: DATABASE
}

// Verb is an entry. A GET changes nothing.
type Verb struct {
	Name      string // as people say it: "node remove"
	Method    string
	Path      string // {name} stands for a part of it
	Who       Who
	Danger    Danger
	Again     bool          // asking twice does what asking once does
	Within    time.Duration // how long it may take; 0: Usual, negative: as long as the asker waits
	Raw       bool          // its handler reads the body itself: a stream, or from programs of another release
	Arguments []Argument
	Sentence  string
}

// Usual is how long a verb may take that says nothing else.
const Usual = 30 * time.Second

// Endless is for verbs that bound themselves or wait for others.
const Endless = -1

// ByHeader names who asks to whoever is asked over a socket, for the log.
const ByHeader = "X-Manada-By"

// MaxBody bounds what a verb takes, in bytes.
const MaxBody = 1 << 20

// Pattern is the verb as http.ServeMux wants it.
func (v Verb) Pattern() string { return v.Method + " " + v.Path }

// At is the verb with a part of its path filled in.
func (v Verb) At(part string) Verb {
	if from, to := strings.IndexByte(v.Path, '{'), strings.IndexByte(v.Path, '}'); from >= 0 {
		v.Path = v.Path[:from] + part + v.Path[to+1:]
	}
	return v
}

// Word is the name of a proxy's verb at its console: KILL_CLIENT.
func (v Verb) Word() string { return strings.ToUpper(path.Base(v.Path)) }

// Asks says whether a verb only asks.
func (v Verb) Asks() bool { return v.Method == http.MethodGet }
