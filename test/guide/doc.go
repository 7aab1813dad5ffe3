// Package guide types the operating guide of the original system, word for
// word and at a terminal, on deploy/compose and a real Docker engine, with a
// load through the proxy all the time, and looks at what each command did.
//
//	make guide
//
// A machine without Docker fails it; MANADA_SKIP_DOCKER=1 skips on purpose.
// Start reading at TestGuide (guide_test.go); how commands are typed is in
// package dockertest.
package guide
