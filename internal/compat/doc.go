// Package compat makes this program answer to the names of those that it stands
// in for: called as `repmgr` it speaks as repmgr does. Each face is a package
// below and holds no logic of its own: it asks the herd, or calls the packages
// that the command line calls, and prints what the original would print.
//
// Start reading in Face (compat.go).
package compat
