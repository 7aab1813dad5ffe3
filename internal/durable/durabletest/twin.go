package durabletest

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"manada/internal/durable"
)

// Loss is one power loss: after how many steps, and how it was.
type Loss struct {
	Dir  string // what is left, in place of the folder
	Step int    // 0: before the first
	Of   int
	How  string
	// Returned: the call had returned, so it must be the new state.
	Returned bool
}

func (l Loss) String() string {
	return fmt.Sprintf("power lost after step %d of %d, %s", l.Step, l.Of, l.How)
}

// PowerLoss calls write, which may change what is below dir, and then look for
// each state in which a power loss after any step of it could have left dir.
// look says what is wrong with a state; "" is fine.
func PowerLoss(t testing.TB, dir string, write func() error, look func(Loss) string) {
	t.Helper()
	before := load(t, dir)
	var ops []durable.Op
	stop := durable.Watch(func(op durable.Op) {
		if within(op.Path, dir) {
			ops = append(ops, op)
		}
	})
	err := write()
	stop()
	if err != nil {
		t.Fatalf("write: %v", err)
	}
	if len(ops) == 0 {
		t.Fatalf("nothing was written through package durable below %s", dir)
	}
	for _, wrong := range losses(t, before, ops, look) {
		t.Error(wrong)
	}
}

// Losses is PowerLoss of steps that are told instead of done, and returns what
// look finds wrong.
func Losses(t testing.TB, dir string, ops []durable.Op, look func(Loss) string) []string {
	return losses(t, load(t, dir), ops, look)
}

func losses(t testing.TB, before *disk, ops []durable.Op, look func(Loss) string) (found []string) {
	seen := map[string]bool{}
	for step := 0; step <= len(ops); step++ {
		d := before.clone()
		for _, op := range ops[:step] {
			d.do(op)
		}
		for _, s := range d.states() {
			returned := step == len(ops)
			key := fmt.Sprint(returned, s.names)
			if seen[key] {
				continue
			}
			seen[key] = true
			at := t.TempDir()
			if err := os.Chmod(at, 0o755); err != nil {
				t.Fatal(err)
			}
			s.lay(t, at)
			l := Loss{Dir: at, Step: step, Of: len(ops), How: s.how, Returned: returned}
			if wrong := look(l); wrong != "" {
				found = append(found, fmt.Sprintf("%s: %s\n%s", l, wrong, story(before.root, ops, step)))
			}
		}
	}
	return found
}

func within(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

func story(dir string, ops []durable.Op, step int) string {
	names := []string{"create", "write", "sync", "rename", "symlink", "remove", "mkdir", "sync folder"}
	var b strings.Builder
	for i, op := range ops {
		if i == step {
			b.WriteString("  -- power lost --\n")
		}
		fmt.Fprintf(&b, "  %s %s %s\n", names[op.Kind], strings.TrimPrefix(op.Path, dir+"/"), strings.TrimPrefix(op.To, dir+"/"))
	}
	return b.String()
}

// inode is a file, a folder or a link.
type inode struct {
	mode   fs.FileMode
	link   string
	now    string // content
	synced string
}

// entry is a change of names that is not on the disk yet.
type entry struct {
	path string
	node *inode // nil: the name is gone
	// moved: below is what a folder that was renamed brings along.
	below map[string]*inode
}

// disk is what a running system sees, and what the platter has.
type disk struct {
	root    string
	now     map[string]*inode
	platter map[string]*inode
	pending map[string][]entry // by folder, in order
}

func load(t testing.TB, dir string) *disk {
	d := &disk{root: dir, now: map[string]*inode{}, platter: map[string]*inode{}, pending: map[string][]entry{}}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		st, err := e.Info()
		if err != nil {
			return err
		}
		n := &inode{mode: st.Mode()}
		switch {
		case st.Mode()&fs.ModeSymlink != 0:
			n.link, err = os.Readlink(path)
		case st.Mode().IsRegular():
			var b []byte
			b, err = os.ReadFile(path)
			n.now, n.synced = string(b), string(b)
		}
		d.now[path], d.platter[path] = n, n
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *disk) clone() *disk {
	c := &disk{root: d.root, now: map[string]*inode{}, platter: map[string]*inode{}, pending: map[string][]entry{}}
	for path, n := range d.now { // before the first step both are the same
		m := *n
		c.now[path], c.platter[path] = &m, &m
	}
	return c
}

func (d *disk) do(op durable.Op) {
	switch op.Kind {
	case durable.OpCreate:
		d.name(op.Path, &inode{mode: 0o600}, nil)
	case durable.OpMkdir:
		d.name(op.Path, &inode{mode: fs.ModeDir | 0o700}, nil)
	case durable.OpSymlink:
		d.name(op.Path, &inode{mode: fs.ModeSymlink, link: op.To}, nil)
	case durable.OpWrite:
		d.now[op.Path].now += string(op.Data)
	case durable.OpSync:
		if n := d.now[op.Path]; n != nil {
			n.synced = n.now
		}
	case durable.OpRemove:
		d.name(op.Path, nil, nil)
	case durable.OpRename:
		n, below := d.now[op.Path], d.below(op.Path)
		d.name(op.Path, nil, nil)
		d.name(op.To, n, below)
	case durable.OpSyncDir:
		for _, e := range d.pending[op.Path] {
			e.apply(d.platter)
		}
		delete(d.pending, op.Path)
	}
}

// below is what a folder holds, by the rest of its path.
func (d *disk) below(dir string) map[string]*inode {
	out := map[string]*inode{}
	for path, n := range d.now {
		if rest, ok := strings.CutPrefix(path, dir+"/"); ok {
			out["/"+rest] = n
		}
	}
	return out
}

func (d *disk) name(path string, n *inode, below map[string]*inode) {
	e := entry{path, n, below}
	e.apply(d.now)
	dir := filepath.Dir(path)
	d.pending[dir] = append(d.pending[dir], e)
}

func (e entry) apply(names map[string]*inode) {
	maps.DeleteFunc(names, func(p string, _ *inode) bool { return within(p, e.path) })
	if e.node == nil {
		return
	}
	names[e.path] = e.node
	for rest, n := range e.below {
		names[e.path+rest] = n
	}
}

// state is one folder that a power loss may leave: names to content.
type state struct {
	root, how string
	names     map[string]string // path below the root, with what kind it is of
	nodes     map[string]*inode
	synced    bool // only content that was synced
}

// states are those with each number of each folder's pending names there, and
// with the content that was not synced there or not.
func (d *disk) states() []state {
	dirs := slices.Sorted(maps.Keys(d.pending))
	var out []state
	var choose func(i int, names map[string]*inode, how []string)
	choose = func(i int, names map[string]*inode, how []string) {
		if i == len(dirs) {
			for _, synced := range []bool{true, false} {
				out = append(out, d.state(names, synced, how))
			}
			return
		}
		all := d.pending[dirs[i]]
		for n := 0; n <= len(all); n++ {
			next := maps.Clone(names)
			for _, e := range all[:n] {
				e.apply(next)
			}
			choose(i+1, next, append(slices.Clone(how), fmt.Sprintf("%d of %d new names in %s", n, len(all), filepath.Base(dirs[i]))))
		}
	}
	choose(0, d.platter, nil)
	return out
}

func (d *disk) state(names map[string]*inode, synced bool, how []string) state {
	s := state{root: d.root, names: map[string]string{}, nodes: map[string]*inode{}, synced: synced}
	if len(how) == 0 {
		how = []string{"every name there"}
	}
	s.how = strings.Join(how, ", ") + ", all content"
	if synced {
		s.how = strings.Join(how, ", ") + ", content that was not synced lost"
	}
	for path, n := range names {
		if !d.reached(names, path) {
			continue // in a folder that is not there
		}
		rest := strings.TrimPrefix(path, d.root+"/")
		s.nodes[rest] = n
		s.names[rest] = n.mode.Type().String() + n.link + s.content(n)
	}
	return s
}

func (d *disk) reached(names map[string]*inode, path string) bool {
	for dir := filepath.Dir(path); dir != d.root; dir = filepath.Dir(dir) {
		if names[dir] == nil {
			return false
		}
	}
	return true
}

func (s state) content(n *inode) string {
	if s.synced {
		return n.synced
	}
	return n.now
}

// lay makes the state in an empty folder.
func (s state) lay(t testing.TB, at string) {
	for _, rest := range slices.Sorted(maps.Keys(s.nodes)) { // folders before what is in them
		n, path := s.nodes[rest], filepath.Join(at, rest)
		var err error
		switch {
		case n.mode.IsDir():
			err = os.Mkdir(path, 0o755)
		case n.link != "":
			err = os.Symlink(n.link, path)
		default:
			err = os.WriteFile(path, []byte(s.content(n)), n.mode.Perm())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
