// Package supervisor is `manada run`: it starts the processes of a host (store,
// backupd, agent, proxy), each with its own log file, starts them again with
// growing pauses when they die, stops them in the right order, answers on a
// control socket and is PID 1 in a container.
//
// It deliberately knows nothing of PostgreSQL, terms or the store: a Child is a
// command line, a log file and how long it may take to stop. PostgreSQL is no
// child of it: the agent starts it below a guardian in a session of its own,
// which survives the death of everything here and is adopted at the next start.
// The children proper die with their supervisor (PDEATHSIG), so that two of a
// kind never run.
//
// One goroutine, locked to its thread, forks every child: the kernel sends
// PDEATHSIG when the *thread* that forked ends. One loop waits for children and
// orphans alike (wait4 of anyone), so nothing else in the process may start a
// command.
//
// Start reading at Run (run.go), then child.loop (child.go).
package supervisor
