package config

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"manada/internal/datadir"
)

// Account is a system user and the groups it is in.
type Account struct {
	Name   string
	UID    int
	GID    int
	Groups []int
}

// CurrentAccount is the user that runs this process.
func CurrentAccount() Account {
	a := Account{Name: strconv.Itoa(os.Geteuid()), UID: os.Geteuid(), GID: os.Getegid()}
	a.Groups, _ = os.Getgroups()
	if u, err := user.LookupId(a.Name); err == nil {
		a.Name = u.Username
	}
	return a
}

// LookupAccount finds a system user.
func LookupAccount(name string) (Account, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return Account{}, fmt.Errorf("look up system user %s: %w", name, err)
	}
	a := Account{Name: name}
	a.UID, _ = strconv.Atoi(u.Uid)
	a.GID, _ = strconv.Atoi(u.Gid)
	ids, _ := u.GroupIds()
	for _, s := range ids {
		if g, err := strconv.Atoi(s); err == nil {
			a.Groups = append(a.Groups, g)
		}
	}
	return a, nil
}

// RunAs is the account under which the processes of this host run: the file's
// user when we are root, else whoever we are.
func (c *Config) RunAs() (Account, error) {
	if os.Geteuid() != 0 {
		return CurrentAccount(), nil
	}
	return LookupAccount(c.User)
}

// may says whether the mode bits of path give the account what is in want
// (4 read, 2 write, 1 search or execute).
func (a Account) may(path string, want os.FileMode) (bool, error) {
	st, err := os.Stat(path)
	if err != nil {
		return false, err
	}
	if a.UID == 0 {
		return true, nil
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return true, nil
	}
	mode := st.Mode().Perm()
	switch {
	case int(sys.Uid) == a.UID:
		mode >>= 6
	case int(sys.Gid) == a.GID || slices.Contains(a.Groups, int(sys.Gid)):
		mode >>= 3
	}
	return mode&want == want, nil
}

// Reaches says whether the account can pass through every folder above path.
// The first folder that stops it is returned, else "".
func (a Account) Reaches(path string) (blocked string) {
	for dir := filepath.Dir(filepath.Clean(path)); ; dir = filepath.Dir(dir) {
		if ok, err := a.may(dir, 1); err == nil && !ok {
			blocked = dir
		}
		if dir == filepath.Dir(dir) {
			return blocked
		}
	}
}

// CanRead explains why the account cannot read a file; nil when it can.
func (a Account) CanRead(path string) error {
	if b := a.Reaches(path); b != "" {
		return fmt.Errorf("user %s cannot enter %s", a.Name, b)
	}
	ok, err := a.may(path, 4)
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("user %s cannot read %s", a.Name, path)
	}
	return nil
}

// CanExecute explains why the account cannot run a program; nil when it can.
func (a Account) CanExecute(path string) error {
	if b := a.Reaches(path); b != "" {
		return fmt.Errorf("user %s cannot enter %s", a.Name, b)
	}
	ok, err := a.may(path, 1)
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("user %s cannot execute %s", a.Name, path)
	}
	return nil
}

// CanKeep explains why the account cannot have dir as its own folder; nil when
// it can. A folder that does not exist yet is judged by the nearest one above
// it that does; asRoot says that somebody with root's rights will make it.
func (a Account) CanKeep(dir string, asRoot bool) error {
	if b := a.Reaches(dir); b != "" {
		return fmt.Errorf("user %s cannot enter %s", a.Name, b)
	}
	at := dir
	for {
		st, err := os.Stat(at)
		if err == nil && !st.IsDir() {
			return fmt.Errorf("%s is a file, not a folder", at)
		}
		if err == nil {
			break
		}
		if !os.IsNotExist(err) || at == filepath.Dir(at) {
			return err
		}
		at = filepath.Dir(at)
	}
	ok, err := a.may(at, 7)
	if err != nil {
		return err
	}
	// Root makes what is missing, and gives away a folder of its own that nothing
	// is in, such as a mount point; what somebody has filled it leaves alone.
	if !ok && !(asRoot && (at != dir || isNew(at))) {
		return fmt.Errorf("user %s cannot write in %s", a.Name, at)
	}
	return nil
}

func isNew(dir string) bool {
	holds, err := datadir.Holds(dir)
	return holds == "" && err == nil
}
