package catalog

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Ask runs a query in a database of the primary, as pool.Asker does.
type Ask func(ctx context.Context, database, sql string, params []string, columns int, row func(cols []string) error) error

// Keeper keeps the sets of the databases that are in use. Its exported fields are set
// before first use; Use, Leave and Refresh are safe for concurrent use.
type Keeper struct {
	Ask Ask
	// Left says that nobody uses a database any more; nil: nobody wants to know.
	Left func(database string)
	// Every is how often the catalogs are looked at for what others have changed.
	Every time.Duration
	Log   *slog.Logger

	mu        sync.Mutex
	databases map[string]*kept
	wake      chan struct{}
}

// kept is one database.
type kept struct {
	live   Live
	users  int
	left   time.Time     // when the last of them has
	state  string        // of the catalogs when they were read
	failed string        // the last error that was logged
	known  chan struct{} // closed when they were read for the first time
	looked chan struct{} // closed when they were read, and made anew

	changes uint64 // that clients told of
	seen    uint64 // those of them that the last reading knows
	begun   uint64 // readings
	done    uint64 // number of the last one that succeeded
}

// linger is how long a set is kept when all have left: clients that come and go have
// it read once. It is less than the time for which DROP DATABASE waits for others.
const linger = 3 * time.Second

// Use gives the set of a database, which is kept until as many have left, and a little
// longer. Until it is read it holds every name.
func (k *Keeper) Use(database string) *Live {
	k.mu.Lock()
	defer k.mu.Unlock()
	d := k.databases[database]
	if d == nil {
		if k.databases == nil {
			k.databases = map[string]*kept{}
		}
		d = &kept{known: make(chan struct{}), looked: make(chan struct{})}
		k.databases[database] = d
		k.rouse()
	}
	d.users++
	return &d.live
}

// Known says whether a database that is in use was read.
func (k *Keeper) Known(database string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	d := k.databases[database]
	if d == nil {
		return true
	}
	select {
	case <-d.known:
		return true
	default:
		return false
	}
}

// Await waits until a database that is in use was read for the first time, or for ctx.
func (k *Keeper) Await(ctx context.Context, database string) {
	k.mu.Lock()
	d := k.databases[database]
	k.mu.Unlock()
	if d == nil {
		return
	}
	select {
	case <-d.known:
	case <-ctx.Done():
	}
}

// Leave ends what Use began.
func (k *Keeper) Leave(database string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	d := k.databases[database]
	if d == nil {
		return
	}
	if d.users--; d.users == 0 {
		d.left = time.Now()
	}
}

// Refresh has a database's catalogs read, and returns when they were read after the
// call, or with an error when ctx is done.
func (k *Keeper) Refresh(ctx context.Context, database string) error {
	number := k.change(database)
	for {
		k.mu.Lock()
		d := k.databases[database]
		if d == nil || d.done >= number {
			k.mu.Unlock()
			return nil
		}
		looked := d.looked
		k.mu.Unlock()
		select {
		case <-looked:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// change says that the catalogs have changed. A reading of the number that it returns,
// or of a greater one, knows of it.
func (k *Keeper) change(database string) uint64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	d := k.databases[database]
	if d == nil {
		return 0
	}
	d.changes++
	k.rouse()
	return d.begun + 1
}

// rouse has Run look at once.
func (k *Keeper) rouse() {
	select {
	case k.alarm() <- struct{}{}:
	default:
	}
}

func (k *Keeper) alarm() chan struct{} {
	if k.wake == nil {
		k.wake = make(chan struct{}, 1)
	}
	return k.wake
}

// Run reads and keeps the sets until ctx is done.
func (k *Keeper) Run(ctx context.Context) {
	k.mu.Lock()
	wake := k.alarm()
	k.mu.Unlock()
	t := time.NewTicker(k.Every)
	defer t.Stop()
	before := map[string]bool{}
	for {
		now := map[string]bool{}
		for _, name := range k.inUse() {
			now[name] = true
			k.look(ctx, name)
		}
		for _, name := range slices.Sorted(maps.Keys(before)) {
			if !now[name] && k.Left != nil {
				k.Left(name)
			}
		}
		before = now
		select {
		case <-wake:
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// inUse forgets the sets that nobody wants any more.
func (k *Keeper) inUse() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	maps.DeleteFunc(k.databases, func(_ string, d *kept) bool { return d.users == 0 && time.Since(d.left) > linger })
	return slices.Sorted(maps.Keys(k.databases))
}

// look reads a database's catalogs if they have changed.
func (k *Keeper) look(ctx context.Context, name string) {
	k.mu.Lock()
	d := k.databases[name]
	if d == nil {
		k.mu.Unlock()
		return
	}
	d.begun++
	number, last, changes := d.begun, d.state, d.changes
	k.mu.Unlock()
	state := ""
	err := k.Ask(ctx, name, changed, nil, 1, func(cols []string) error { state = cols[0]; return nil })
	if err == nil && (state != last || !d.live.Known()) {
		var n *Names
		if n, err = Read(ctx, name, k.Ask); err == nil {
			d.live.set(n)
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if err != nil {
		before := d.live.Known()
		if d.changes > d.seen { // what was read does not hold any more
			d.live.set(nil)
		}
		if why := err.Error(); ctx.Err() == nil && d.failed != why {
			d.failed = why
			k.Log.Warn("a database's catalogs cannot be read; until they were, every name in it counts as one that may leave something behind",
				"database", name, "read_before", before, "error", err)
		}
		return
	}
	if d.done == 0 {
		close(d.known)
	}
	close(d.looked)
	d.looked = make(chan struct{})
	d.failed, d.done, d.state, d.seen = "", number, state, changes
}

// Read reads a database's catalogs.
func Read(ctx context.Context, database string, ask Ask) (*Names, error) {
	g := newGraph()
	if err := ask(ctx, database, query, []string{array(harmless), array(runners)}, columns, g.row); err != nil {
		return nil, err
	}
	return g.build(), nil
}

// array writes names as PostgreSQL reads a text[].
func array(names map[string]bool) string {
	return "{" + strings.Join(slices.Sorted(maps.Keys(names)), ",") + "}"
}

// row takes one row of query.
func (g *graph) row(cols []string) error {
	var n [4]uint32
	for i := range n {
		v, err := strconv.ParseUint(cols[1+i], 10, 32)
		if err != nil {
			return fmt.Errorf("a row of the catalogs: %w", err)
		}
		n[i] = uint32(v)
	}
	o, user, name := object{n[0], n[1]}, object{n[2], n[3]}, cols[5]
	switch cols[0] {
	case "s":
		g.builtin[name], g.symbols[cols[6]] = true, true
	case "h":
		g.harmless[name] = true
	case "f":
		head, source, _ := strings.Cut(cols[6], "\n")
		language, extension, _ := strings.Cut(head, " ")
		g.names[o], g.functions[o] = name, function{language, extension, source}
	case "t":
		g.bad = append(g.bad, o)
	case "n", "p":
		g.names[o] = name
		g.plain[o] = cols[0] == "p"
	case "e":
		g.users[o] = append(g.users[o], user)
	}
	return nil
}
