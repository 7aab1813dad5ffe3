// Package trust says how often a test repeats what has to hold every time. In
// `make test` each runs once or twice; `make trust` runs the numbers that are
// promised (MANADA_TRUST=1). A test with such a number is named TestTrust....
//
// Not here: the tests themselves, which stand beside what they hold.
package trust

import "os"

// All reports whether the promised numbers are wanted.
func All() bool { return os.Getenv("MANADA_TRUST") == "1" }

// Runs is how often to try: few in every run of the tests, all in `make trust`.
func Runs(few, all int) int {
	if All() {
		return all
	}
	return few
}
