// Package conversation holds conversations of PostgreSQL's frontend/backend
// protocol as text, plays them to an address, and compares what came back. It is
// how the proxy is judged: what is played to PostgreSQL itself and what is played
// through a proxy must give the same messages, however the client's bytes are cut.
//
// Nobody writes down what is right: PostgreSQL says it each time. What comes back
// is written one message a line, with what differs between any two runs made
// alike: process ids, OIDs of what users made, the schema. What a proxy may
// answer differently is a list with reasons, in corpus/allowed.
//
// The corpus is in corpus/*.txt, its words are in corpus/README.md; Random makes
// more of them. Start reading at Player.Play (play.go).
package conversation
