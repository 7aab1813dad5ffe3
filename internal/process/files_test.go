package process

import (
	"strings"
	"testing"

	"manada/internal/config"
	"manada/internal/proxy"
)

// Too low a limit of files is told, with what is needed; a host without a proxy needs
// none.
func TestFileConditions(t *testing.T) {
	c := &config.Config{Node: "db1", Roles: []string{"database", "proxy"}}
	c.Proxy.MaxClients = 10000
	need := proxy.FilesFor(10000)
	if cs := fileConditions(c, need); len(cs) != 0 {
		t.Errorf("enough: %v", cs)
	}
	cs := fileConditions(c, 4096)
	if len(cs) != 1 || cs[0].Code != "M-H10" || !strings.Contains(cs[0].Text, "4096 files") || !strings.Contains(cs[0].Hint, "LimitNOFILE=11200") {
		t.Errorf("too few: %+v", cs)
	}
	if n := proxy.ClientsWithin(4096); proxy.FilesFor(n) != 4096 {
		t.Errorf("%d clients need %d files", n, proxy.FilesFor(n))
	}
	c.Roles = []string{"database"}
	if cs := fileConditions(c, 100); len(cs) != 0 {
		t.Errorf("no proxy: %v", cs)
	}
}
