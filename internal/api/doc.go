// Package api answers HTTP for the processes of a herd: the health endpoints
// that load balancers expect, with Patroni's meaning (health.go), metrics
// (metrics.go), the status as JSON and events as they happen (events.go), and
// the verbs that change something (verbs.go).
//
// It decides nothing and keeps no state: what it tells comes out of a Source,
// what it is asked to do goes to a Verb, both handed in by the process that
// serves. It opens no port by itself except through Serve, and makes no TLS
// configuration: package pki does. Verbs are only answered on listeners whose
// requests are authenticated (see Trust).
//
// Start reading at Options and New (api.go).
package api
