package rules

// mutation leaves a rule out, for the tests of the tests.
type mutation uint8

const (
	_ mutation = iota
	fifo
	sharing
	epochs
	generations
	clientLimit
	eviction
	nodeLimit
	poolLimit
	pauses
	holds
)
