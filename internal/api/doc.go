// Package api answers HTTP for the processes of a herd: the health endpoints
// that load balancers expect, with Patroni's meaning (health.go), metrics
// (metrics.go), the status as JSON, events as they happen (events.go) and what
// else a process tells (reads.go).
//
// It decides nothing, changes nothing and keeps no state: what it tells comes out
// of a Source, handed in by the process that serves. It opens no port by itself
// except through Serve, and makes no TLS configuration: package pki does.
//
// Start reading at Options and New (api.go).
package api
