// Package e2e runs whole herds through the program that users have and breaks
// them: failover, faults of every process, stop and start, bad input, backups.
//
//	go test ./test/e2e                       everything, in a few minutes
//	go test ./test/e2e -run Herd/Switchover  one part; it makes its own herd
//	go test ./test/e2e -long                 many repetitions (make chaos)
//
// The parts of TestHerd run one after the other on one herd, in the order of
// the table in herd_test.go, and leave it well; a part that fails costs the
// herd, and the next one gets a new one. As root PostgreSQL runs as user
// postgres, otherwise nothing here needs root.
//
// Everything stands in one folder below the temporary folder. A janitor, a
// second process of the test program, ends what runs there and removes it when
// the tests are gone, however they ended.
//
// $MANADA_E2E_BIN names a program to be tested instead of the one built from
// this tree.
//
// It deliberately does not measure: bench/failover does. Outages are logged and
// bounded generously here, for a machine that does other things too.
package e2e
