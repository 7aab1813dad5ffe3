// Package intruder attacks a running herd from outside: everybody who could have
// a certificate, or none, tries everything on every port. It is not part of the
// program.
//
// Start reading at TestTrustIntruder (intruder_test.go): the herd and the table
// of who may do what. Who the intruders are is in people_test.go, what they try
// in actions_test.go.
package intruder
