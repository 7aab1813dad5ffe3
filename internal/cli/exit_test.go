package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
	"testing"

	"manada/internal/peer"
)

// The exit code says whether something may have been done.
func TestOutcomeCodes(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
		code int
		hint string
	}{
		{"join to an address that is silent", joinFailure(fmt.Errorf("join herd: connect to 10.0.0.9:7400: %w", context.DeadlineExceeded)), exitFailed, "Nothing was changed"},
		{"a request that the store may have taken", peer.Refuse(http.StatusServiceUnavailable, peer.CodeUnknown, "h", "x"), exitUnknown, "h"},
		{"a request that it has not", peer.Refuse(http.StatusServiceUnavailable, peer.CodeUnavailable, "h", "x"), exitFailed, "h"},
		{"a primary that is well", peer.Refuse(http.StatusConflict, "primary_is_well", "h", "x"), exitFailed, "h"},
		{"a command that ran out of time", context.DeadlineExceeded, exitUnknown, "what became of it"},
		{"a file that may not be read", fmt.Errorf("read secrets: %w", fs.ErrPermission), exitFailed, "run it as root"},
		{"something else", errors.New("x"), exitFailed, ""},
	} {
		if code, _, hint := explain(c.err); code != c.code || !strings.Contains(hint, c.hint) {
			t.Errorf("%s: exit %d, hint %q", c.name, code, hint)
		}
	}
}
