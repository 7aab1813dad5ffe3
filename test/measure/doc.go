// Package measure is the yardstick of the herd's promises: a writer that knows
// which commits were acknowledged, and how long none was.
//
// Outage is the longest interval between two acknowledged commits over four
// connections that each commit one own row back to back and reconnect at once,
// on the client's monotonic clock. Lost are acknowledged ids that are missing
// afterwards. Used by the demo, the end-to-end tests and the bench.
package measure
