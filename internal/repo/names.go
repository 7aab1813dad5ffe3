package repo

import (
	"fmt"
	"path"
	"regexp"
	"strings"
	"time"
)

// BackupType is full, diff or incr.
type BackupType string

// The types of backups. A diff refers to its full, an incr to any before it.
const (
	Full BackupType = "full"
	Diff BackupType = "diff"
	Incr BackupType = "incr"
)

func (t BackupType) letter() string { return map[BackupType]string{Full: "F", Diff: "D", Incr: "I"}[t] }

// Names of files in a stanza.
const (
	ArchiveInfoFile = "archive.info"
	BackupInfoFile  = "backup.info"
	ManifestFile    = "backup.manifest"
	CopySuffix      = ".copy"
	LatestLink      = "latest"
	historyDir      = "backup.history"
)

const labelTime = "20060102-150405"

var (
	labelRE  = regexp.MustCompile(`^(\d{8}-\d{6})F(?:_(\d{8}-\d{6})([DI]))?$`)
	stanzaRE = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`)
)

// IsLabel says whether s is a backup label.
func IsLabel(s string) bool { return labelRE.MatchString(s) }

// LabelType is the type of the labelled backup, "" for what is no label.
func LabelType(label string) BackupType {
	m := labelRE.FindStringSubmatch(label)
	switch {
	case m == nil:
		return ""
	case m[3] == "D":
		return Diff
	case m[3] == "I":
		return Incr
	}
	return Full
}

// LabelFull is the label of the full backup that the labelled one belongs to.
func LabelFull(label string) string {
	f, _, _ := strings.Cut(label, "_")
	return f
}

// labelStamp is the time part that orders a label among others.
func labelStamp(label string) string {
	m := labelRE.FindStringSubmatch(label)
	if m == nil {
		return ""
	}
	return max(m[1], m[2])
}

// NewLabel makes the label of a backup that starts at now, in now's location.
// It sorts after all of existing (labels of backups and of the history): when
// that needs a second, it takes one; more means that the clock went back.
// prior is the backup that a diff or incr continues.
func NewLabel(t BackupType, prior string, now time.Time, existing []string) (string, error) {
	newest := ""
	for _, l := range existing {
		newest = max(newest, labelStamp(l))
	}
	stamp := now.Format(labelTime)
	if stamp <= newest {
		stamp = now.Add(time.Second).Format(labelTime)
	}
	if stamp <= newest {
		return "", fmt.Errorf("new backup label %s is not later than the latest existing label %s; has the clock been set back?", stamp, newest)
	}
	if t == Full {
		return stamp + "F", nil
	}
	return LabelFull(prior) + "_" + stamp + t.letter(), nil
}

// CheckStanza says whether a stanza's name can be one path element.
func CheckStanza(s string) error {
	if !stanzaRE.MatchString(s) {
		return fmt.Errorf("stanza name %q: want letters, digits, '_', '.', '-'", s)
	}
	return nil
}

// ArchivePath is where a stanza's WAL is.
func ArchivePath(stanza string, elem ...string) string {
	return path.Join(append([]string{"archive", stanza}, elem...)...)
}

// BackupPath is where a stanza's backups are.
func BackupPath(stanza string, elem ...string) string {
	return path.Join(append([]string{"backup", stanza}, elem...)...)
}

// HistoryPath is where a backup's manifest is kept when the backup has expired.
func HistoryPath(stanza, label string) string {
	return BackupPath(stanza, historyDir, labelStamp(label)[:4], label+".manifest.gz")
}

// HistoryDir holds the years of HistoryPath.
func HistoryDir(stanza string) string { return BackupPath(stanza, historyDir) }

// BundlePath is where a bundle is.
func BundlePath(stanza, label string, id uint64) string {
	return BackupPath(stanza, label, "bundle", fmt.Sprint(id))
}

// FilePath is where a file is that is in no bundle.
func FilePath(stanza, label, name string, c Compression) string {
	return BackupPath(stanza, label, name) + c.Ext()
}
