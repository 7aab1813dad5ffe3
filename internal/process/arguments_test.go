package process

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"manada/internal/agent"
	"manada/internal/store"
	"manada/internal/verb"
)

// What commands send and handlers read has the fields that the list names: what it does
// not name is refused before any handler.
func TestArgumentsAreWhatIsSent(t *testing.T) {
	for _, c := range []struct {
		verb verb.Verb
		sent any
	}{
		{verb.Switchover, agent.RequestVerb{}},
		{verb.Failover, agent.RequestVerb{}},
		{verb.Reinit, agent.RequestVerb{}},
		{verb.Restore, agent.RestoreVerb{}},
		{verb.Undo, agent.RestoreVerb{}},
		{verb.Plan, PlanRequest{}},
		{verb.Pause, store.Pause{}},
		{verb.Token, agent.TokenVerb{}},
		{verb.SetConfig, ConfigChange{}},
		{verb.Rotate, RotateVerb{}},
		{verb.Superuser, SuperuserVerb{}},
		{verb.StartBackup, BackupRequest{}},
	} {
		var sent, named []string
		for f := range reflect.TypeOf(c.sent).Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			sent = append(sent, name)
		}
		for _, a := range c.verb.Arguments {
			named = append(named, a.Name)
		}
		slices.Sort(sent)
		slices.Sort(named)
		if !slices.Equal(sent, named) {
			t.Errorf("%s: sent are %v, the list has %v", c.verb.Name, sent, named)
		}
	}
}
