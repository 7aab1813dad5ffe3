package config

import (
	"fmt"
	"os"
	"path/filepath"
)

// AcceptedFile is a copy of the file with which this host runs: a file that has
// mistakes does not take its place.
func (c *Config) AcceptedFile() string { return filepath.Join(c.StateDir(), "manada.yaml.accepted") }

// RefusedFile says why the file as it is now is not run with; it is there only
// while that is so.
func (c *Config) RefusedFile() string { return filepath.Join(c.StateDir(), "manada.yaml.refused") }

// LoadAccepted is Load of a file whose contents are in a copy; messages and
// relative paths are of the file.
func LoadAccepted(file, copy string, environ []string) (*Config, error) {
	data, err := os.ReadFile(copy)
	if err != nil {
		return nil, fmt.Errorf("read the accepted configuration: %w", err)
	}
	return Parse(file, data, environ)
}

// Problem is one with the key's value, where that came from.
func (c *Config) Problem(key, what, want, hint string) Problem {
	at := c.File
	switch o := c.Origins[key]; o.Source {
	case "file":
		at = where(c.File, o.Line)
	case "env":
		at = "$" + o.Env
	}
	return Problem{at, key, what, want, hint}
}

// ControlSocket is where the supervisor of this host answers.
func (c *Config) ControlSocket() string { return filepath.Join(c.RunDir, "supervisor.sock") }

// ProxySocket is where this host's proxy takes orders.
func (c *Config) ProxySocket() string { return filepath.Join(c.RunDir, "proxy.sock") }
