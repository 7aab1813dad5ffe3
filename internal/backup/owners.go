package backup

import (
	"os"
	"os/user"
	"strconv"
	"syscall"

	"manada/internal/repo"
)

// owners gives restored files their owners, which only root can.
type owners struct {
	root     bool
	uid, gid int // for names that this host does not have: the directory's own
	users    map[repo.Owner]int
	groups   map[repo.Owner]int
}

func newOwners(dir string) *owners {
	o := &owners{root: os.Geteuid() == 0, users: map[repo.Owner]int{}, groups: map[repo.Owner]int{}}
	if st, err := os.Stat(dir); err == nil {
		s := st.Sys().(*syscall.Stat_t)
		o.uid, o.gid = int(s.Uid), int(s.Gid)
	}
	return o
}

// preload resolves all names, so that the maps are only read afterwards.
func (o *owners) preload(m *repo.Manifest) {
	if !o.root {
		return
	}
	add := func(u, g repo.Owner) {
		if _, ok := o.users[u]; !ok {
			o.users[u] = o.uid
			if x, err := user.Lookup(string(u)); err == nil {
				o.users[u], _ = strconv.Atoi(x.Uid)
			}
		}
		if _, ok := o.groups[g]; !ok {
			o.groups[g] = o.gid
			if x, err := user.LookupGroup(string(g)); err == nil {
				o.groups[g], _ = strconv.Atoi(x.Gid)
			}
		}
	}
	for i := range m.Files {
		add(m.Files[i].User, m.Files[i].Group)
	}
	for _, p := range m.Paths {
		add(p.User, p.Group)
	}
	for _, l := range m.Links {
		add(l.User, l.Group)
	}
	add(m.FileDefault.User, m.FileDefault.Group)
}

// apply gives the owner to what is under a name of the tree.
func (o *owners) apply(t *tree, name string, u, g repo.Owner) error {
	if !o.root {
		return nil
	}
	return t.chown(name, o.users[u], o.groups[g])
}
