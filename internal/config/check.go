package config

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
)

// Check looks at the machine: folders, programs, files, addresses. It changes
// nothing. The error is of type Problems.
func (c *Config) Check() error {
	v := &validator{c: c}
	account, err := c.RunAs()
	if err != nil {
		v.fail("user", fmt.Sprintf("there is no system user %q", c.User), "the user that runs PostgreSQL", "install PostgreSQL, which makes it: apt install postgresql-15")
		return v.problems.OrNil()
	}
	v.folders(account)
	v.program(account)
	v.joinFiles(account)
	v.eventsCommand(account)
	v.address()
	return v.problems.OrNil()
}

func (v *validator) folders(a Account) {
	asRoot := os.Geteuid() == 0
	keep := func(key, dir string) {
		if err := a.CanKeep(dir, asRoot); err != nil {
			v.fail(key, err.Error(), "a folder that user "+a.Name+" can write", "")
		}
	}
	keep("data_dir", v.c.DataDir)
	keep("run_dir", v.c.RunDir)
	if v.c.Has(Repository) {
		keep("backup.repo_path", v.c.Backup.RepoPath)
	}
	if st, err := os.Stat(v.c.PGData()); err == nil && st.Mode().Perm()&0o027 != 0 {
		v.fail("data_dir", fmt.Sprintf("%s has mode %04o: PostgreSQL refuses to start there", v.c.PGData(), st.Mode().Perm()), "0700 or 0750", "chmod 0700 "+v.c.PGData())
	}
}

// programs that the agent of a database host runs.
var programs = []string{"postgres", "initdb", "pg_ctl", "pg_rewind", "pg_basebackup", "pg_controldata"}

func (v *validator) program(a Account) {
	if !v.c.Has(Database) {
		return
	}
	dir := v.c.PostgreSQL.BinDir
	if dir == "" {
		v.fail("postgresql.bin_dir", "no PostgreSQL found", "the folder that holds postgres and initdb", "install it (apt install postgresql-15) or set postgresql.bin_dir")
		return
	}
	for _, p := range programs {
		f := filepath.Join(dir, p)
		err := a.CanExecute(f)
		if err == nil {
			continue
		}
		if errors.Is(err, os.ErrNotExist) {
			err = fmt.Errorf("there is no program %s", f)
		}
		v.fail("postgresql.bin_dir", err.Error(), "the folder that holds "+p, "on Debian it is /usr/lib/postgresql/15/bin")
		return
	}
}

func (v *validator) eventsCommand(a Account) {
	c, err := ParseCommand(v.c.Events.Command)
	if err != nil {
		return // not given, or told by validate
	}
	program := c.Program()
	if !filepath.IsAbs(program) {
		v.fail("events.command", fmt.Sprintf("%q is no full path of a program", program), "a path from the root on", "")
		return
	}
	if err := a.CanExecute(program); err != nil {
		v.fail("events.command", err.Error(), "a program that user "+a.Name+" can run", "")
	}
}

func (v *validator) joinFiles(a Account) {
	for key, f := range map[string]string{"join.token_file": v.c.Join.TokenFile, "join.secret_file": v.c.Join.SecretFile} {
		if f == "" || v.c.HasIdentity() {
			continue // a token serves once; afterwards the file may go
		}
		if err := a.CanRead(f); err != nil {
			v.fail(key, err.Error(), "a file that user "+a.Name+" can read", "")
		}
	}
}

// HasIdentity says whether this host belongs to a herd: it founded or joined.
// (identity.json is what package pki writes last.)
func (c *Config) HasIdentity() bool {
	_, err := os.Stat(filepath.Join(c.IdentityDir(), "identity.json"))
	return err == nil
}

// address checks that listen is an address of this machine.
func (v *validator) address() {
	ip := net.ParseIP(v.c.Listen)
	if ip == nil || ip.IsUnspecified() || ip.IsLoopback() {
		return
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return // not known is not wrong
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.Equal(ip) {
			return
		}
	}
	v.fail("listen", fmt.Sprintf("no interface of this host has the address %s", v.c.Listen), "an address of this host", "ip address  lists them")
}
