package process

import (
	"errors"
	"os"
	"testing"

	"manada/internal/config"
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
