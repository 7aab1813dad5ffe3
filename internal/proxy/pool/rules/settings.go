package rules

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Mode says when a client gives its server back.
type Mode uint8

// The modes. Which one a client is in is its conversation's business; here it is
// only remembered for it.
const (
	Session     Mode = iota // when it leaves
	Transaction             // when its transaction has ended
	Statement               // the same, and transactions of several statements are refused
	Auto                    // as Transaction, and what cannot be carried keeps the server
)

var modes = []string{"session", "transaction", "statement", "auto"}

// String is the mode's name in the configuration.
func (m Mode) String() string { return modes[m] }

// ParseMode reads a mode's name.
func ParseMode(s string) (Mode, error) {
	if i := slices.Index(modes, s); i >= 0 {
		return Mode(i), nil
	}
	return 0, fmt.Errorf("%q is no mode: want one of %s", s, strings.Join(modes, ", "))
}

// Settings are those of one pool.
type Settings struct {
	Mode Mode
	// Size bounds the servers of a pool; 0: the node's limit alone does. Reserve
	// more are opened once somebody has waited for ReserveTimeout. Min are kept while
	// the pool has clients, whatever IdleTimeout says.
	Size, Reserve, Min int
	ReserveTimeout     time.Duration
	QueueTimeout       time.Duration // how long a client waits for a server; 0: for ever
	Lifetime           time.Duration // after which a server is not handed out again; 0: never
	IdleTimeout        time.Duration // after which an unused server is closed; 0: never
	MaxClients         int           // 0: any number
}

// Override is what is set for some pools only. Its pattern names them: a database,
// "*/user", or "database/user"; the latter counts before the others, a user's before
// its database's.
type Override struct {
	Database, User string // empty: all
	Set            []Assignment
}

// Assignment sets one of the settings.
type Assignment struct {
	Name  string
	apply func(*Settings)
}

// ParseOverride reads a pattern and "name=value ..." with the names of
// proxy.pool.*, for example "orders/app" and "size=20 mode=transaction".
func ParseOverride(pattern, values string) (Override, error) {
	db, user, both := strings.Cut(pattern, "/")
	if db == "*" {
		db = ""
	}
	if pattern == "" || both && (user == "" || user == "*") || !both && db == "" {
		return Override{}, fmt.Errorf("%q names no pools: want DATABASE, */USER or DATABASE/USER", pattern)
	}
	o := Override{Database: db, User: user}
	for _, word := range strings.Fields(values) {
		name, value, _ := strings.Cut(word, "=")
		if slices.ContainsFunc(o.Set, func(a Assignment) bool { return a.Name == name }) {
			return Override{}, fmt.Errorf("%s: %s is set twice", pattern, name)
		}
		set, err := assignment(name, value)
		if err != nil {
			return Override{}, fmt.Errorf("%s: %w", pattern, err)
		}
		o.Set = append(o.Set, Assignment{name, set})
	}
	if len(o.Set) == 0 {
		return Override{}, fmt.Errorf("%s: sets nothing: want name=value, as in size=20", pattern)
	}
	return o, nil
}

func assignment(name, value string) (func(*Settings), error) {
	if name == "mode" {
		m, err := ParseMode(value)
		return func(s *Settings) { s.Mode = m }, err
	}
	if n, ok := numbers[name]; ok {
		i, err := strconv.Atoi(value)
		if err != nil || i < n.least || i > maxNumber {
			return nil, fmt.Errorf("%s=%s: want a whole number from %d to %d", name, value, n.least, maxNumber)
		}
		return func(s *Settings) { *n.of(s) = i }, nil
	}
	if limit, ok := durations[name]; ok {
		d, err := time.ParseDuration(value)
		if err != nil || d < 0 || d > limit.most {
			return nil, fmt.Errorf("%s=%s: want a duration from 0s to %s, such as 30s", name, value, limit.most)
		}
		return func(s *Settings) { *limit.of(s) = d }, nil
	}
	return nil, fmt.Errorf("there is no setting %q of a pool", name)
}

const maxNumber = 1000000

var numbers = map[string]struct {
	least int
	of    func(*Settings) *int
}{
	"size":        {1, func(s *Settings) *int { return &s.Size }},
	"reserve":     {0, func(s *Settings) *int { return &s.Reserve }},
	"min":         {0, func(s *Settings) *int { return &s.Min }},
	"max_clients": {1, func(s *Settings) *int { return &s.MaxClients }},
}

const day = 24 * time.Hour

// durations are bounded as the keys of the same names are (package config).
var durations = map[string]struct {
	most time.Duration
	of   func(*Settings) *time.Duration
}{
	"reserve_timeout": {day, func(s *Settings) *time.Duration { return &s.ReserveTimeout }},
	"queue_timeout":   {day, func(s *Settings) *time.Duration { return &s.QueueTimeout }},
	"lifetime":        {365 * day, func(s *Settings) *time.Duration { return &s.Lifetime }},
	"idle_timeout":    {365 * day, func(s *Settings) *time.Duration { return &s.IdleTimeout }},
}

// Config is what a Book goes by. Limits of nodes come with the nodes.
type Config struct {
	Default    Settings
	Overrides  []Override
	MaxClients int // over all databases and users; 0: any number
}

// precedence of an override: the greater is applied later.
func (o Override) precedence() int {
	switch {
	case o.User == "":
		return 0
	case o.Database == "":
		return 1
	}
	return 2
}

// For gives the settings of a pool.
func (c *Config) For(database, user string) Settings {
	s := c.Default
	for level := range 3 {
		for _, o := range c.Overrides {
			if o.precedence() != level || o.Database != "" && o.Database != database || o.User != "" && o.User != user {
				continue
			}
			for _, a := range o.Set {
				if a.Name != "max_clients" { // of this level alone: see maxClients
					a.apply(&s)
				}
			}
		}
	}
	return s
}

// maxClients is what an override of exactly this pattern says; 0: nothing.
func (c *Config) maxClients(database, user string) int {
	most := 0
	for _, o := range c.Overrides {
		if o.Database == database && o.User == user {
			for _, a := range o.Set {
				if a.Name == "max_clients" {
					var s Settings
					a.apply(&s)
					most = s.MaxClients
				}
			}
		}
	}
	return most
}

// NodeLimit is how many connections a proxy may hold to a node when nothing else
// was said: what max_connections leaves beside the slots of superusers, those
// reserved for roles and what the herd itself needs, shared by the proxies.
func NodeLimit(maxConnections, reserved, herd, proxies int) int {
	return max((maxConnections-reserved-herd)/max(proxies, 1), 1)
}
