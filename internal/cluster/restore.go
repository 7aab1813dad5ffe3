package cluster

import "fmt"

// Restore is an operator's order to restore the running herd. While it stands
// in the record nobody takes over: the leader stops, replaces its data by a
// backup's, recovers to the target and begins the next epoch from there, or the
// order is withdrawn (undone). Swapping it in and a takeover are the same
// compare-and-swap, so they cannot both win.
type Restore struct {
	ID string `json:"id"`
	// Type and Target say where recovery ends: "default" (everything that was
	// acknowledged), "time", "lsn", "xid", "name" or "immediate".
	Type      string `json:"type"`
	Target    string `json:"target,omitempty"`
	Exclusive bool   `json:"exclusive,omitempty"` // stop just before the target
	// Timeline is the line that recovery follows.
	Timeline Timeline `json:"timeline"`
	Set      string   `json:"set"` // label of the backup
	// KeepOld: the data that is replaced is kept beside until the herd is
	// synchronous again.
	KeepOld bool   `json:"keep_old,omitempty"`
	By      string `json:"by,omitempty"`
	// Touched is written before the leader's data is altered: from then on the
	// order can be withdrawn only if somebody else has everything (or it was kept).
	Touched bool `json:"touched,omitempty"`
}

// RestoreDefault recovers everything: no target.
const RestoreDefault = "default"

// Everything says whether all that was acknowledged comes back.
func (r *Restore) Everything() bool { return r.Type == RestoreDefault || r.Type == "" }

// To is the target, for people.
func (r *Restore) To() string {
	switch {
	case r.Everything():
		return "the newest commit"
	case r.Type == "immediate":
		return "the end of backup " + r.Set
	case r.Exclusive:
		return fmt.Sprintf("just before %s %s", r.Type, r.Target)
	}
	return r.Type + " " + r.Target
}

// Same says whether two orders ask for the same.
func (r *Restore) Same(o *Restore) bool {
	x, y := *r, *o
	x.ID, y.ID, x.By, y.By, x.Touched, y.Touched = "", "", "", "", false, false
	return x == y
}

// RestoredBy finds the epoch that the order of that id began.
func (t *Term) RestoredBy(id string) (Branch, bool) {
	for _, b := range t.History {
		if id != "" && b.Restored == id {
			return b, true
		}
	}
	return Branch{}, false
}

// Stretch is a part of a line of timelines: WAL of Timeline up to End (0: its
// own end).
type Stretch struct {
	Timeline Timeline
	End      LSN
}

// Line is how the WAL of a timeline came about, the newest stretch first. Nil
// when the timeline was never allocated.
func (t *Term) Line(tl Timeline) []Stretch {
	e, ok := t.EpochOf(tl)
	if !ok {
		return nil
	}
	b, _ := t.Branch(e)
	out := []Stretch{{Timeline: tl}}
	for b.Parent != 0 {
		p, ok := t.Branch(b.Parent)
		if !ok {
			break
		}
		out = append(out, Stretch{Timeline: p.Timeline, End: b.ForkLSN})
		b = p
	}
	return out
}
