package guide

import (
	"context"
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"manada/test/dockertest"
)

// TestMain has the engine and the images ready, and stops what it started.
func TestMain(m *testing.M) {
	flag.Parse()
	if testing.Short() || os.Getenv("MANADA_SKIP_DOCKER") == "1" {
		os.Exit(m.Run()) // every test skips
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	ctx, cancel := context.WithTimeout(context.Background(), 9*time.Minute)
	defer cancel()
	stop, err := dockertest.Start(ctx, dockertest.Root)
	if err != nil {
		fmt.Fprintln(os.Stderr, "guide:", err)
		return 1
	}
	defer stop()
	return m.Run()
}

func skip(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("-short")
	}
	if os.Getenv("MANADA_SKIP_DOCKER") == "1" {
		t.Skip("MANADA_SKIP_DOCKER=1")
	}
}

// guide is the folder with what every step needs.
type guide struct {
	*testing.T
	*dockertest.Folder
	dsn string
}

func start(t *testing.T) *guide {
	skip(t)
	f, err := dockertest.Copy(t.Context(), dockertest.Root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			tell(t, f)
		}
		if os.Getenv("KEEP") == "" {
			f.Remove()
		}
	})
	return &guide{T: t, Folder: f}
}

// tell shows how things are when a test has failed.
func tell(t *testing.T, f *dockertest.Folder) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for _, c := range dockertest.Containers {
		out, _ := f.Type(ctx, "docker ps -a --filter name=^/"+c+"$ --format '{{.Names}} {{.Status}}'; docker logs --tail 40 "+c)
		t.Logf("%s:\n%s", c, out)
	}
	out, _ := f.Type(ctx, "docker exec slave manada status || docker exec master manada status")
	t.Log(out)
}

// step runs a part under its own name; the parts build on each other.
func (g *guide) step(name string, f func(g *guide)) {
	g.Helper()
	began := time.Now()
	ok := g.Run(name, func(t *testing.T) { f(&guide{t, g.Folder, g.dsn}) })
	if !ok {
		g.Fatalf("%s failed; what follows builds on it", name)
	}
	g.Logf("%-40s %5.1f s", name, time.Since(began).Seconds())
}

// escapes move the cursor and colour the text.
var escapes = regexp.MustCompile(`\x1b\[[0-9;?]*[A-Za-z]`)

// types types a line of the guide; it must succeed and show all of these.
func (g *guide) types(line string, shows ...string) string {
	g.Helper()
	began := time.Now()
	out, err := g.Type(g.Context(), line)
	if err != nil {
		g.Fatal(err)
	}
	for _, s := range shows {
		if !strings.Contains(out, s) {
			g.Fatalf("%s does not show %q:\n%s", line, s, out)
		}
	}
	g.Logf("$ %s   (%.1f s)\n%s", line, time.Since(began).Seconds(), escapes.ReplaceAllString(out, ""))
	return out
}

func (g *guide) must(err error) {
	g.Helper()
	if err != nil {
		g.Fatal(err)
	}
}

// got wants a value without an error: got(f())(g).
func got[T any](v T, err error) func(*guide) T {
	return func(g *guide) T {
		g.Helper()
		g.must(err)
		return v
	}
}
