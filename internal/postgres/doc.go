// Package postgres handles one PostgreSQL instance: the data directory, the
// configuration, starting and stopping (through the guardian), following,
// promoting, rewinding, cloning, and honest observation. It is the only package
// that runs PostgreSQL's programs.
//
// It deliberately decides nothing: every operation is small, exact and
// idempotent, and refuses what would break a promise that is on its disk. When
// and why to promote is for package decide; the agent calls.
//
// Facts that shape it, each with a test named after the finding: whether
// commits wait is a shared flag that no view shows (C5, ProbeInForce); a
// receiver ends only when it is told (C4, EndReceiver); timelines are picked by
// PostgreSQL unless one stands in its way (M7, Promote); pg_rewind believes the
// source's pg_control (T10, Rewind).
//
// Start reading at Config (config.go) and Instance (instance.go), then Observe
// (observe.go).
package postgres
