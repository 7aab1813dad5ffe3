// Package soak is many clients of every kind at work on the proxy's ports while
// the herd is switched over and its primary killed, again and again. Every client
// writes rows that only it writes, knows of each what it was told, and carries a
// setting that only it has. Afterwards the database is asked: what was acknowledged
// is there once, what was refused is not, nobody ever saw another client's row,
// answer or setting, and nobody read less than it had written, or at a standby less
// than before.
//
// `make test` runs one switchover and one crash, `make proxy-soak` what is
// promised. Start reading at TestSoak (soak_test.go), then client.go.
package soak
