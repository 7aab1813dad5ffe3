// Package tlsmem is crypto/tls for connections that change hands: a goroutine
// shakes hands, blocking, over the connection itself; afterwards Take flips it and
// somebody else moves the bytes, who gives Open what was received and sends what
// Seal made.
//
// It does no I/O after Take. Start reading at Conn.Open (conn.go).
package tlsmem
