package repmgr

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"manada/internal/cluster"
	"manada/internal/config"
)

// Settings is what Manada takes over from a repmgr.conf. Fields are zero (nil)
// when the file does not give them: Manada's default holds then.
type Settings struct {
	NodeID             int           // key node_id
	NodeName           string        // key node; fit to be a node's name
	Failover           string        // key failover: "automatic" or "manual"
	Priority           *int          // key priority; 0 never leads
	Location           string        // key location
	EventCommand       string        // key events.command
	EventNotifications []string      // key events.only
	SuspectAfter       time.Duration // key timing.suspect_after: reconnect_attempts x reconnect_interval
}

// Key is one setting in Manada's own words.
type Key struct {
	Name  string // as in manada.yaml, "timing.suspect_after"
	Value string // as the environment or the file would have it; lists with commas
}

// Keys lists what the file gives as keys of manada.yaml.
func (s Settings) Keys() []Key {
	var ks []Key
	add := func(given bool, name, value string) {
		if given {
			ks = append(ks, Key{name, value})
		}
	}
	add(s.NodeName != "", "node", s.NodeName)
	add(s.NodeID != 0, "node_id", strconv.Itoa(s.NodeID))
	add(s.Location != "", "location", s.Location)
	add(s.Failover != "", "failover", s.Failover)
	if s.Priority != nil {
		add(true, "priority", strconv.Itoa(*s.Priority))
	}
	add(s.EventCommand != "", "events.command", s.EventCommand)
	add(len(s.EventNotifications) > 0, "events.only", strings.Join(s.EventNotifications, ","))
	add(s.SuspectAfter != 0, "timing.suspect_after", s.SuspectAfter.String())
	return ks
}

// Bounds of timing.suspect_after.
const maxSuspect = 5 * time.Minute

// Translate reads a repmgr.conf; file is its name for messages. Every setting
// that is not taken over is named in a warning, "repmgr.conf line 7: ...", with
// the reason. A value that repmgr would refuse too, or that Manada cannot obey,
// is an error that begins with "file:line: ".
func Translate(file string, r io.Reader) (Settings, []string, error) {
	t := translator{file: file, line: map[string]int{}, reconnect: map[string]int{}}
	items, err := parse(file, r)
	if err != nil {
		return t.s, nil, err
	}
	for _, i := range items {
		if first, twice := t.line[i.name]; twice {
			t.warn(i.line, "%s is given again (first in line %d): the last one counts", i.name, first)
		}
		t.line[i.name] = i.line
		if err := t.take(i); err != nil {
			return t.s, t.warnings, fmt.Errorf("%s:%d: %w", file, i.line, err)
		}
	}
	if err := t.suspectAfter(); err != nil {
		return t.s, t.warnings, err
	}
	if t.s.Failover == "" {
		t.warnings = append(t.warnings, file+": failover is not given: Manada fails over automatically (repmgr alone would not); failover='manual' keeps this node from it")
	}
	return t.s, t.warnings, nil
}

type translator struct {
	file      string
	s         Settings
	line      map[string]int // where a name stood last
	reconnect map[string]int
	warnings  []string
}

func (t *translator) warn(line int, format string, args ...any) {
	t.warnings = append(t.warnings, fmt.Sprintf("%s line %d: ", t.file, line)+fmt.Sprintf(format, args...))
}

func (t *translator) take(i item) error {
	var err error
	switch i.name {
	case "node_id":
		t.s.NodeID, err = number(i, 1)
	case "node_name":
		if err = cluster.CheckNodeName(i.value); err != nil {
			return fmt.Errorf("node_name %q cannot be a node's name in Manada: want 1 to 40 of a-z, 0-9 and -, beginning with a letter or digit", i.value)
		}
		t.s.NodeName = i.value
	case "failover":
		if i.value != "automatic" && i.value != "manual" {
			return fmt.Errorf("failover is %q: want automatic or manual", i.value)
		}
		t.s.Failover = i.value
	case "priority":
		var n int
		n, err = number(i, 0)
		t.s.Priority = &n
	case "location":
		t.s.Location = i.value
	case "event_notification_command":
		// repmgr's own names of events, where there are any.
		t.s.EventCommand = strings.ReplaceAll(strings.ReplaceAll(i.value, "%%", "\x00"), "%e", "%r")
		t.s.EventCommand = strings.ReplaceAll(t.s.EventCommand, "\x00", "%%")
		if _, err := config.ParseCommand(t.s.EventCommand); err != nil {
			return fmt.Errorf("event_notification_command %w", err)
		}
	case "event_notifications":
		t.s.EventNotifications = names(i.value)
	case "reconnect_attempts", "reconnect_interval":
		t.reconnect[i.name], err = number(i, 1)
	default:
		t.skip(i)
	}
	return err
}

// skip says why a setting is not taken over.
func (t *translator) skip(i item) {
	if why, ok := notTaken[i.name]; ok {
		t.warn(i.line, "%s %s", i.name, why)
		return
	}
	t.warn(i.line, "%s is no setting of repmgr 5 and is ignored", i.name)
}

// suspectAfter is how long repmgrd would try to reach a lost primary; the
// number that is not given is repmgr's default.
func (t *translator) suspectAfter() error {
	if len(t.reconnect) == 0 {
		return nil
	}
	attempts, interval, line := 6, 10, 0
	for name, n := range t.reconnect {
		if name == "reconnect_attempts" {
			attempts = n
		} else {
			interval = n
		}
		line = max(line, t.line[name])
	}
	d := time.Duration(attempts) * time.Duration(interval) * time.Second
	if d > maxSuspect {
		return fmt.Errorf("%s:%d: reconnect_attempts x reconnect_interval is %s: Manada suspects a silent primary after %s at the latest", t.file, line, d, maxSuspect)
	}
	t.s.SuspectAfter = d
	return nil
}

func number(i item, least int) (int, error) {
	n, err := strconv.Atoi(i.value)
	if err != nil || n < least || n > 1<<30 {
		return 0, fmt.Errorf("%s is %q: want a whole number, %d or more", i.name, i.value, least)
	}
	return n, nil
}

// names splits a list at commas.
func names(list string) []string {
	var out []string
	for _, n := range strings.Split(list, ",") {
		if n = strings.TrimSpace(n); n != "" {
			out = append(out, n)
		}
	}
	return out
}
