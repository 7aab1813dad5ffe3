package lint

import (
	"go/ast"
	"strings"
	"testing"
)

// Every rule must object to something, or it is not a rule.
func TestRulesObject(t *testing.T) {
	for _, c := range []struct {
		name string
		rule rule
		path string
		src  string
		want string // part of the only finding; empty: none
	}{
		{"cluster imports ours", imports, "internal/cluster/x.go", `package cluster; import _ "manada/internal/store"`, "internal/cluster may import [] of ours"},
		{"decide imports cluster", imports, "internal/decide/x.go", `package decide; import _ "manada/internal/cluster"`, ""},
		{"decide imports store", imports, "internal/decide/x.go", `package decide; import _ "manada/internal/store"`, "not internal/store"},
		{"its test may", imports, "internal/decide/x_test.go", `package decide; import _ "manada/internal/store"`, ""},
		{"cli decides", imports, "internal/cli/x.go", `package cli; import _ "manada/internal/decide"`, "internal/cli must not import internal/decide"},
		{"api decides", imports, "internal/api/x.go", `package api; import _ "manada/internal/decide"`, "must not"},
		{"compat decides", imports, "internal/compat/x.go", `package compat; import _ "manada/internal/decide"`, "must not"},
		{"agent decides", imports, "internal/agent/x.go", `package agent; import _ "manada/internal/decide"`, ""},
		{"store imports cli", imports, "internal/store/x.go", `package store; import _ "manada/internal/cli"`, "must not"},
		{"others are free", imports, "internal/store/x.go", `package store; import _ "example.org/decide"`, ""},

		{"goroutine", purity, "internal/decide/x.go", `package decide; func f() { go f() }`, "goroutine"},
		{"goroutine elsewhere", purity, "internal/agent/x.go", `package agent; func f() { go f() }`, ""},
		{"clock", purity, "internal/decide/x.go", `package decide; import "time"; var t = time.Now()`, "time.Now"},
		{"clock as a value", purity, "internal/decide/x.go", `package decide; import "time"; var f = time.Since`, "time.Since"},
		{"clock under another name", purity, "internal/decide/x.go", `package decide; import clock "time"; func f() { clock.Sleep(1) }`, "time.Sleep"},
		{"a duration is fine", purity, "internal/decide/x.go", `package decide; import "time"; const d = time.Second`, ""},
		{"random", purity, "internal/decide/x.go", `package decide; import _ "math/rand/v2"`, "math/rand/v2"},
		{"os", purity, "internal/health/x.go", `package health; import _ "os"`, "must not import os"},
		{"net", purity, "internal/cluster/x.go", `package cluster; import _ "net/http"`, "net/http"},
		{"channel", purity, "internal/decide/x.go", `package decide; var c chan int`, "channel"},

		{"runs a program", postgresPrograms, "internal/agent/x.go", `package agent; var p = "pg_rewind"`, "pg_rewind is run by"},
		{"runs it by path", postgresPrograms, "internal/agent/x.go", `package agent; var p = "/usr/lib/postgresql/15/bin/initdb"`, "initdb"},
		{"postmaster", postgresPrograms, "internal/guardian/x.go", `package guardian; import "os/exec"; var c = exec.Command("postgres", "-D", "x")`, "postgres is run by"},
		{"postmaster by path", postgresPrograms, "internal/guardian/x.go", `package guardian; import ("os/exec"; "path"); var c = exec.Command(path.Join("bin", "postgres"))`, "postgres is run by"},
		{"the role postgres", postgresPrograms, "internal/agent/x.go", `package agent; var role = "postgres"`, ""},
		{"prose", postgresPrograms, "internal/agent/x.go", `package agent; var op = "pg_rewind from slave"`, ""},
		{"postgres itself", postgresPrograms, "internal/postgres/x.go", `package postgres; var p = "pg_rewind"`, ""},
		{"config names", postgresPrograms, "internal/config/x.go", `package config; var p = "pg_rewind"`, ""},
		{"config starts", postgresPrograms, "internal/config/x.go", `package config; import "os/exec"; var c = exec.Command("true")`, "starts no process"},
		{"its test elsewhere", postgresPrograms, "internal/agent/x_test.go", `package agent; var p = "pg_rewind"`, ""},

		{"background", background, "internal/agent/x.go", `package agent; import "context"; var c = context.Background()`, "context.Background"},
		{"todo", background, "internal/agent/x.go", `package agent; import "context"; var c = context.TODO()`, "context.TODO"},
		{"detached", background, "internal/agent/x.go", "package agent; import \"context\"\n// detached: the clean-up outlives the request\nvar c = context.Background()", ""},
		{"detached in more words", background, "internal/agent/x.go", "package agent; import \"context\"\n// detached: the clean-up outlives\n// the request\nvar c = context.Background()", ""},
		{"detached on the line", background, "internal/agent/x.go", "package agent; import \"context\"\nvar c = context.Background() // detached: kill", ""},
		{"detached far away", background, "internal/agent/x.go", "package agent; import \"context\"\n// detached: x\n\nvar d int\nvar c = context.Background()", "context.Background"},
		{"main", background, "cmd/manada/x.go", `package main; import "context"; var c = context.Background()`, ""},
		{"cli root", background, "internal/cli/main.go", `package cli; import "context"; var c = context.Background()`, ""},
		{"cli command", background, "internal/cli/status.go", `package cli; import "context"; var c = context.Background()`, "context.Background"},
		{"helper of tests", background, "internal/store/storetest/x.go", `package storetest; import "context"; var c = context.Background()`, ""},
		{"test", background, "internal/agent/x_test.go", `package agent; import "context"; var c = context.Background()`, ""},

		{"renames", renames, "internal/store/x.go", `package store; import "os"; func f() { os.Rename("a", "b") }`, "internal/durable"},
		{"syncs", renames, "internal/store/x.go", `package store; import "os"; func f(f *os.File) { f.Sync() }`, "internal/durable"},
		{"need not last", renames, "internal/store/x.go", "package store; import \"os\"\nfunc f() {\n\tos.Rename(\"a\", \"b\") // need not last: a log\n}", ""},
		{"durable itself", renames, "internal/durable/x.go", `package durable; import "os"; func f() { os.Rename("a", "b") }`, ""},

		{"long", tooLong, "internal/agent/x.go", "package agent\n" + strings.Repeat("\n", maxLines), "701 lines"},
		{"not so long", tooLong, "internal/agent/x.go", "package agent\n" + strings.Repeat("\n", maxLines-1), ""},
		{"not formatted", unformatted, "internal/agent/x.go", "package agent\nvar   x int\n", "gofmt"},
		{"formatted", unformatted, "internal/agent/x.go", "package agent\n\nvar x int\n", ""},
	} {
		s, err := parse(c.path, []byte(c.src))
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		expect(t, c.name, c.rule(s), c.want)
	}
}

func expect(t *testing.T, name string, got []string, want string) {
	t.Helper()
	if want == "" && len(got) > 0 {
		t.Errorf("%s: objects wrongly: %q", name, got)
	}
	if want != "" && (len(got) != 1 || !strings.Contains(got[0], want)) {
		t.Errorf("%s: found %q, want one with %q", name, got, want)
	}
}

func TestMapOrderObjects(t *testing.T) {
	for _, c := range []struct{ name, body, want string }{
		{"map", `for range map[int]int{} {}`, "range over a map"},
		{"named map", `type m map[string]int; var x m; for k := range x { _ = k }`, "range over a map"},
		{"keys", `for range maps.Keys(map[int]int{}) {}`, "maps.Keys"},
		{"collected", `_ = slices.Collect(maps.Values(map[int]int{}))`, "maps.Values"},
		{"sorted", `for range slices.Sorted(maps.Keys(map[int]int{})) {}`, ""},
		{"slice", `for range []int{} {}`, ""},
	} {
		src := "package decide\nimport (\"maps\"; \"slices\")\nvar _, _ = maps.Keys[map[int]int], slices.Max[[]int]\nfunc f() {" + c.body + "}"
		s, err := parse("internal/decide/x.go", []byte(src))
		if err != nil {
			t.Fatal(err)
		}
		fs := []*source{s}
		info, errs := check(t, "internal/lint/testdata/deps", fs)
		if len(errs) > 0 {
			t.Fatalf("%s: %v", c.name, errs)
		}
		expect(t, c.name, mapOrder(fs[0], info), c.want)
	}
}

func TestUndocumentedObjects(t *testing.T) {
	file := func(path, src string) *source {
		s, err := parse(path, []byte(src))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	expect(t, "none", undocumented("x", []*source{file("x/a.go", "package x")}), "no package comment")
	expect(t, "of another form", undocumented("x", []*source{file("x/a.go", "// Things.\npackage x")}), "no package comment")
	expect(t, "one", undocumented("x", []*source{file("x/a.go", "// Package x is.\npackage x"), file("x/b.go", "package x")}), "")
	expect(t, "two", undocumented("x", []*source{file("x/a.go", "// Package x is.\npackage x"), file("x/b.go", "// Package x was.\npackage x")}), "more than one")
	expect(t, "command", undocumented("x", []*source{file("x/a.go", "// Command x does.\npackage main")}), "")
	expect(t, "tests only", undocumented("x", []*source{file("x/a_test.go", "package x")}), "")
}

func TestStrangersObjects(t *testing.T) {
	hosts := []string{"registry.example.org"}
	w := "/wo" + "rk/"
	expect(t, "path", strangers("f", []byte("see "+w+"main"), hosts), "f:1: a path of one machine")
	expect(t, "path at the start", strangers("f", []byte("\n"+w+"x"), hosts), "f:2:")
	expect(t, "path in quotes", strangers("f", []byte(`"`+w+`x"`), hosts), "f:1:")
	expect(t, "part of a path", strangers("f", []byte("/frame"+w[1:]+" art"+w+" ${DIR}"+w), hosts), "")
	expect(t, "host", strangers("f", []byte("https://registry.example.org/x"), hosts), "registry.example.org")
}

// TestCallSeesShadows: a local variable named like a package is not the package.
func TestCallSeesShadows(t *testing.T) {
	s, err := parse("internal/decide/x.go", []byte("package decide\nimport \"time\"\nvar _ time.Duration\ntype c struct{}\nfunc (c) Now() int { return 0 }\nfunc f() { time := c{}; _ = time.Now() }"))
	if err != nil {
		t.Fatal(err)
	}
	expect(t, "shadow", purity(s), "")
	var calls int
	ast.Inspect(s.ast, func(n ast.Node) bool {
		if _, ok := n.(*ast.CallExpr); ok {
			calls++
		}
		return true
	})
	if calls != 1 {
		t.Fatalf("the example has %d calls", calls)
	}
}
