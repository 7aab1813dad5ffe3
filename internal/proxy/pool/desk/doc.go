// Package desk carries out what rules decide: it is the one lock around the book of
// the pools, its clock and its timer, and it opens connections in goroutines.
//
// Loops ask it for servers and give them back, from their own threads; what it
// decides for somebody else it tells that one (Taker). It knows neither sockets nor
// the protocol: a connection is whatever Open gave.
//
// Start reading at Desk.Want.
package desk
