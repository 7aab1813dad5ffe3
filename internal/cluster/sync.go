package cluster

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// SyncSetting is a value of synchronous_standby_names as we render it. Three
// forms exist: empty (commit alone), the placeholder (wait for nobody that
// exists, so acknowledge nothing) and k of the certified names of one epoch.
type SyncSetting struct {
	Alone bool     `json:"alone,omitempty"` // the empty setting
	K     int      `json:"k,omitempty"`
	Names []string `json:"names,omitempty"` // certified names, sorted; none: the placeholder
}

// CommitAlone is the empty setting: only a leader whose term says k = 0 has it.
func CommitAlone() SyncSetting { return SyncSetting{Alone: true} }

// HoldCommits is the placeholder: every commit waits.
func HoldCommits() SyncSetting { return SyncSetting{} }

// WaitFor waits for k of the nodes under the names of the epoch.
func WaitFor(k int, epoch uint64, nodes ...string) SyncSetting {
	s := SyncSetting{K: max(k, 1)}
	for _, n := range nodes {
		s.Names = append(s.Names, CertifiedName(n, epoch))
	}
	slices.Sort(s.Names)
	return s
}

// IsHold says whether the setting is the placeholder.
func (s SyncSetting) IsHold() bool { return !s.Alone && len(s.Names) == 0 }

// Has says whether the setting waits for that node in that epoch.
func (s SyncSetting) Has(node string, epoch uint64) bool {
	return slices.Contains(s.Names, CertifiedName(node, epoch))
}

// Equal compares two settings.
func (s SyncSetting) Equal(o SyncSetting) bool {
	return s.Alone == o.Alone && s.K == o.K && slices.Equal(s.Names, o.Names)
}

// String is the value of synchronous_standby_names.
func (s SyncSetting) String() string {
	if s.Alone {
		return ""
	}
	if len(s.Names) == 0 {
		return fmt.Sprintf("ANY 1 (%q)", Placeholder)
	}
	q := make([]string, len(s.Names))
	for i, n := range s.Names {
		q[i] = fmt.Sprintf("%q", n)
	}
	return fmt.Sprintf("ANY %d (%s)", s.K, strings.Join(q, ","))
}

var syncValue = regexp.MustCompile(`^ANY (\d+) \((.*)\)$`)

// ParseSyncSetting reads a value that String wrote; false for any other, as
// after somebody set it by hand.
func ParseSyncSetting(v string) (SyncSetting, bool) {
	if v == "" {
		return CommitAlone(), true
	}
	if v == HoldCommits().String() {
		return HoldCommits(), true
	}
	m := syncValue.FindStringSubmatch(v)
	if m == nil {
		return SyncSetting{}, false
	}
	k, err := strconv.Atoi(m[1])
	if err != nil {
		return SyncSetting{}, false
	}
	s := SyncSetting{K: k}
	for _, q := range strings.Split(m[2], ",") {
		name, err := strconv.Unquote(strings.TrimSpace(q))
		if err != nil {
			return SyncSetting{}, false
		}
		s.Names = append(s.Names, name)
	}
	slices.Sort(s.Names)
	return s, true
}
