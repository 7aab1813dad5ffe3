package process

import (
	"errors"
	"os"
	"testing"
	"time"

	"manada/internal/backup"
	"manada/internal/config"
	"manada/internal/keeper"
)

// TestWhetherWALIsKept: for whom WAL is kept, by backup.enabled and by what is
// known of the herd.
func TestWhetherWALIsKept(t *testing.T) {
	for _, c := range []struct {
		what, enabled string
		roles         []string
		before        *Facts // nil: the members were not read yet
		kept          bool
	}{
		{"not asked yet", "auto", nil, nil, true},
		{"there is one", "auto", nil, &Facts{Repo: "h:8432", RepoNode: "h", HadRepo: true}, true},
		{"there never was one", "auto", nil, &Facts{}, false},
		{"it was removed", "auto", nil, &Facts{HadRepo: true}, true},
		{"it is here", "auto", []string{string(config.Repository)}, &Facts{}, true},
		{"there never was one, but it is wanted", "on", nil, &Facts{}, true},
		{"nobody wants one", "off", nil, &Facts{Repo: "h:8432", HadRepo: true}, false},
		{"nobody wants one, not asked yet", "off", nil, nil, false},
	} {
		r := &repository{cfg: &config.Config{Roles: c.roles, Backup: config.Backup{Enabled: c.enabled}}}
		if c.before != nil {
			r.set(*c.before)
		}
		if why := r.Nowhere(); (why == "") != c.kept {
			t.Errorf("%s: %q", c.what, why)
		}
		if c.kept {
			continue
		}
		if b := r.status(t.Context()); b == nil || b.Off != (c.enabled == "off") || b.None == b.Off {
			t.Errorf("%s: status %+v", c.what, b)
		}
		if err := r.Get(t.Context(), "000000010000000000000001", "x"); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: restore_command: %v", c.what, err)
		}
	}
}

// TestGapsIn: the gap that costs most is told, with what a restore still reaches.
func TestGapsIn(t *testing.T) {
	gap := func(covered, inside bool, segments int) keeper.KnownGap {
		return keeper.KnownGap{Gap: backup.Gap{First: "A", Last: "C", Segments: segments, Backup: "F1", Until: "0/3000000",
			Stored: time.Unix(0, 0), Covered: covered, Inside: inside}}
	}
	now, old := gapsIn([]keeper.KnownGap{gap(true, true, 1), gap(false, false, 3)})
	if now.WAL != "3 WAL segments, A to C" || now.Cost != "restores from backup F1, and from older ones, end at 0/3000000, archived 1970-01-01 00:00:00Z" {
		t.Errorf("%+v", now)
	}
	if old.WAL != "WAL segment A" || old.Cost != "backup F1 cannot be restored" {
		t.Errorf("%+v", old)
	}
	if now, old := gapsIn(nil); now.WAL != "" || old.WAL != "" {
		t.Errorf("%+v %+v", now, old)
	}
}
