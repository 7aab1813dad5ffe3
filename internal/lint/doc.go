// Package lint keeps the architecture true: its tests read the whole tree and
// fail with file and line where a rule is broken. It holds no code of its own
// and nothing imports it.
//
// The rules are those of ARCHITECTURE.md: which package may import which
// (imports_test.go), that decisions are pure (pure_test.go), that only package
// postgres runs PostgreSQL's programs, that every wait has an end
// (calls_test.go), and what files look like (files_test.go). Each rule is a
// function from a parsed file to findings, and each has a test that shows it
// something it must object to (rules_test.go).
//
// It deliberately does not judge style beyond gofmt.
package lint
