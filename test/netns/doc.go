// Package netns runs the walk-through "Three hosts" of README.md as it is
// written, on three hosts made of Linux namespaces, and then breaks their
// network. It holds tests only.
//
// A host is a process in network, mount, pid and uts namespaces of its own
// (host_test.go) with its own /etc, /var/lib, /run, /root and /usr/local/bin.
// What a real host would have and a namespace has not is put first in PATH:
// apt-get that checks that the packages are there, scp between the hosts, and a
// systemctl that does what the unit file says (unit_test.go). All of it lives in
// one more set of namespaces (sandbox_test.go), which the kernel clears away
// with the test's process, however that ends. Only root can make namespaces.
//
// It deliberately checks no figures: bench does.
//
// Start reading at TestTrustThreeHosts (threehosts_test.go).
package netns
