// Package catalog knows what is dangerous in a database: which names of functions,
// relations, types and operators may, when a text uses them, leave something behind
// in the session that no statement in the text would tell: a setting, an advisory
// lock, a temporary object, the state of a sequence.
//
// One query (sql.go) reads a database's functions and what depends on what. Build
// goes from the functions that may leave something behind to all that reaches them:
// views and rules, triggers, defaults, policies, checks, operators, casts, types,
// tables below and above, foreign keys that cascade. A function in SQL or PL/pgSQL
// is judged by its text, cut by the proxy's lexer; one in another language by its
// extension, if that is known. The names of all other functions are harmless: what is
// in neither set was not there when the catalogs were read. Keeper holds the sets, and
// reads them anew when the catalogs have changed: every second, and before a client that
// changed them is answered.
//
// A set that is not known holds every name. It deliberately does not decide what
// follows from a dangerous name, nor where a statement goes.
package catalog
