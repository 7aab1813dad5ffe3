// Package hba evaluates lines of pg_hba.conf for the clients of the proxy.
// PostgreSQL only sees the proxy's address, so the proxy has to say who may log
// in from where, by the same lines and in the same order.
//
// What the proxy cannot decide as PostgreSQL would is refused by name when the
// lines are read, never guessed: groups (+role, samerole), files (@), host
// names, and methods other than scram-sha-256, md5 and reject. The proxy always
// asks for SCRAM: md5 means that too, as it does in PostgreSQL for a role whose
// password is stored so. trust would let in whoever asks, and the proxy could
// not log in to PostgreSQL as that user: it is refused.
//
// It deliberately knows nothing of passwords and reads no file. Start reading at
// Parse (parse.go), then Rules.Refuses (match.go).
package hba
