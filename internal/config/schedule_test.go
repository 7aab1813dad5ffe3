package config

import (
	"strings"
	"testing"
)

func TestSchedule(t *testing.T) {
	c, err := Parse("m.yaml", []byte(minimal+"backup:\n  schedule:\n    full: \"0 1 * * 0\"\n    incr: \"0 1 * * 1-6\"\n"), nil)
	if err != nil || c.Backup.Schedule["incr"] != "0 1 * * 1-6" {
		t.Errorf("%v, %v", c.Backup.Schedule, err)
	}
	for text, want := range map[string]string{
		"    ful: \"0 1 * * 0\"\n":   `backup.schedule.ful: is no type of backup, did you mean "full"?`,
		"    full: \"0 25 * * 0\"\n": `backup.schedule.full: "0 25 * * 0" is no time of cron`,
		"    diff: daily\n":          `"daily" has 1 fields, not five`,
		"    diff: [1, 2]\n":         "backup.schedule.diff: is a list",
	} {
		_, err := Parse("m.yaml", []byte("backup:\n  schedule:\n"+text+minimal), nil)
		if err == nil || !strings.Contains(err.Error(), "m.yaml:3: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := Parse("m.yaml", []byte(minimal+"backup: {compress: gz, compress_level: 19}\n"), nil); err == nil || !strings.Contains(err.Error(), "gz has no such level") {
		t.Errorf("%v", err)
	}
}
