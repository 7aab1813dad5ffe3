// Package route says where a new session goes: to the primary of the current
// open epoch, or to a standby that is fresh enough.
//
// It dials nothing and keeps no sessions. Who is primary is not decided here:
// a View only repeats the term record (protocol, step 6: "the proxies follow
// the record"). Start reading at View (view.go), then FromBeats (beats.go).
package route
