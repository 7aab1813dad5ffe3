// Package dockertest runs deploy/compose on a real Docker engine, for `make
// guide` and bench/containers. It starts an engine where none runs, builds the
// images, works in a copy of the folder, and leaves nothing.
//
// Start reading at Start (engine.go), then Folder (folder.go).
package dockertest
