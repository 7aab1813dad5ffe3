package agent

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"time"

	"manada/internal/cluster"
	"manada/internal/durable"
	"manada/internal/health"
)

// lastKnownEvery is how often the time at which the repository answered is
// written down while nothing of what it says changes.
const lastKnownEvery = time.Minute

// lastKnown is state/backups.json: what the repository said when it answered last.
// An agent that starts while it does not answer tells of that.
type lastKnown struct {
	Schema int                  `json:"schema"` // 1
	At     time.Time            `json:"at"`     // when it answered, up to lastKnownEvery ago
	Host   string               `json:"host"`
	Status cluster.BackupStatus `json:"status"`
}

func (a *Agent) lastKnownPath() string { return filepath.Join(a.cfg.StateDir, "backups.json") }

// readLastKnown begins with what was known before; nothing where that cannot be read.
func (a *Agent) readLastKnown() {
	b, err := os.ReadFile(a.lastKnownPath())
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var k lastKnown
	if err == nil {
		err = json.Unmarshal(b, &k)
	}
	if err == nil && k.At.IsZero() {
		err = errors.New("no time in it")
	}
	if err != nil {
		a.log.Warn("what was last known of the repository is not known any more", "error", err.Error())
		return
	}
	if k.Status.UnknownSince == nil {
		k.Status.UnknownSince = &k.At
	}
	a.backupStatus, a.lastKnown = &health.Backup{BackupStatus: k.Status, Host: k.Host}, k
}

// keepLastKnown writes down what the repository has just said, or since when it
// says nothing. Only SetBackups calls it.
func (a *Agent) keepLastKnown(b *health.Backup, now time.Time) {
	if b.Off || b.None {
		return
	}
	k := lastKnown{Schema: 1, At: now, Host: b.Host, Status: b.BackupStatus}
	if b.UnknownSince != nil {
		k.At = *b.UnknownSince
	}
	old := a.lastKnown
	if reflect.DeepEqual(k.Status, old.Status) && k.Host == old.Host && k.At.Sub(old.At) < lastKnownEvery {
		return
	}
	text, err := json.Marshal(k)
	if err == nil {
		err = os.MkdirAll(a.cfg.StateDir, 0o700)
	}
	if err == nil {
		err = durable.Write(a.lastKnownPath(), append(text, '\n'), durable.Options{})
	}
	if err != nil {
		a.log.Warn("cannot write down what is known of the repository", "error", err.Error())
	}
	a.lastKnown = k // also when it failed: it is tried again after a while
}
