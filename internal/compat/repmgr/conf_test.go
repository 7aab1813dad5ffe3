package repmgr

import (
	"slices"
	"strings"
	"testing"
	"time"
)

const sample = `# node
node_id=1
node_name='master'
conninfo='host=master user=repmgr password=''top secret'' dbname=repmgr connect_timeout=2'
data_directory = '/bitnami/postgresql/data'
failover automatic          # the equal sign may be missing
promote_command='repmgr standby promote -f /opt/repmgr.conf'
priority=0
location = 'dc1'
reconnect_attempts=3
reconnect_interval=5
event_notification_command='/usr/local/bin/tell %n "%e" %s ''%d'''
event_notifications='standby_promote, repmgrd_failover_promote,'
monitoring_hisory=yes
`

func TestTranslate(t *testing.T) {
	s, warnings, err := Translate("repmgr.conf", strings.NewReader(sample))
	if err != nil {
		t.Fatal(err)
	}
	want := []Key{
		{"node", "master"}, {"node_id", "1"}, {"location", "dc1"}, {"failover", "automatic"}, {"priority", "0"},
		{"events.command", `/usr/local/bin/tell %n "%r" %s '%d'`},
		{"events.only", "standby_promote,repmgrd_failover_promote"}, {"timing.suspect_after", "15s"},
	}
	if got := s.Keys(); !slices.Equal(got, want) {
		t.Errorf("keys:\n%q\nwant:\n%q", got, want)
	}
	for i, w := range []string{
		"repmgr.conf line 4: conninfo is not needed", "repmgr.conf line 5: data_directory is ignored",
		"repmgr.conf line 7: promote_command is not needed: the agent promotes by itself",
		"repmgr.conf line 14: monitoring_hisory is no setting",
	} {
		if i >= len(warnings) || !strings.HasPrefix(warnings[i], w) {
			t.Errorf("warnings are %q, want %q as number %d", warnings, w, i)
		}
	}
	if len(warnings) != 4 || strings.Contains(strings.Join(warnings, ""), "secret") {
		t.Errorf("warnings are %q", warnings)
	}
}

// What is not given stays Manada's default; one that changes what happens is said.
func TestTranslateNothing(t *testing.T) {
	s, warnings, err := Translate("repmgr.conf", strings.NewReader("# nothing\n\n"))
	if err != nil || len(s.Keys()) != 0 || len(warnings) != 1 || !strings.Contains(warnings[0], "failover is not given") {
		t.Errorf("got %+v, %q, %v", s, warnings, err)
	}
}

func TestReconnect(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"reconnect_attempts=2\n": 20 * time.Second, "reconnect_interval=2\n": 12 * time.Second,
	} {
		if s, _, err := Translate("f", strings.NewReader(text)); err != nil || s.SuspectAfter != want {
			t.Errorf("%q: %s, %v; want %s", text, s.SuspectAfter, err, want)
		}
	}
}

func TestTranslateMistakes(t *testing.T) {
	for text, want := range map[string]string{
		"failover=auto":      "f:1: failover is \"auto\": want automatic or manual",
		"\npriority='high'":  "f:2: priority is \"high\": want a whole number, 0 or more",
		"node_id=0":          "f:1: node_id is \"0\": want a whole number, 1 or more",
		"node_name='Node_1'": "f:1: node_name \"Node_1\" cannot be a node's name in Manada",
		"priority":           "f:1: priority has no value",
		"location='here":     "f:1: the value of location begins with a quote",
		"location=my place":  "f:1: \"place\" stands behind the value of location",
		"=5":                 "f:1: \"=5\" does not begin with the name of a setting",
		"event_notification_command='tell %e | mail'": "f:1: event_notification_command holds '|', which only a shell understands",
		"include 'other.conf'":                        "f:1: include is not followed: put the settings of other.conf into this file",
		"reconnect_attempts=60\nfailover=manual\n":    "f:1: reconnect_attempts x reconnect_interval is 10m0s",
	} {
		if _, _, err := Translate("f", strings.NewReader(text)); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: error %v, want %q", text, err, want)
		}
	}
}
