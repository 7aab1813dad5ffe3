// Package durable is the one place that writes what must last: after a power
// loss there is the old content or the new one, whole, and once a call has
// returned without an error the new one.
//
// A file gets its content under a temporary name beside it, is written to the
// disk, takes its name, and its folder is written to the disk. A crash may leave
// the temporary name; Sweep removes those.
//
// Not here: files that may be lost (logs, sockets, what a running process
// renders anew at each start through here all the same), and the bulk of a
// restore, which is written to the disk as a whole before pg_control takes its
// name. A test in internal/lint forbids os.Rename and File.Sync elsewhere.
//
// durabletest has the twin that forgets what was not written to the disk.
// Start at durable.go.
package durable
