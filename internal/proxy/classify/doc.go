// Package classify says of an SQL text what the proxy has to know to route it:
// whether it certainly only reads, what it may leave behind in the session, and
// where it hides warnings from the proxy.
//
// It is conservative. It has PostgreSQL's lexical rules and no grammar: what it
// does not know by name is not a read. "Certainly" has one limit that no text
// shows: what a function, an operator or a view hides. A name of the list can be
// shadowed through search_path or by an overload. Such a thing cannot write
// through a standby, since PostgreSQL refuses (25006) and the proxy then repeats
// the statement on the primary; package session does.
//
// It deliberately knows no session, no protocol and no catalogue, and it expects
// standard_conforming_strings = on and an encoding whose quotes are bytes.
// Start reading at Text (classify.go).
package classify
