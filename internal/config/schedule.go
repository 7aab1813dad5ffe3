package config

import (
	"maps"
	"slices"

	"manada/internal/schedule"
)

// schedule: each kind has a time of cron.
func (v *validator) schedule() {
	for _, kind := range slices.Sorted(maps.Keys(v.c.Backup.Schedule)) {
		key, text := "backup.schedule."+kind, v.c.Backup.Schedule[kind]
		if !slices.Contains(schedule.Kinds, kind) {
			v.fail(key, "is no type of backup"+didYouMean(kind, schedule.Kinds), "full, diff or incr", "")
		} else if _, err := schedule.ParseTime(text); err != nil {
			v.fail(key, err.Error(), "the five fields of cron: minute, hour, day of the month, month, day of the week",
				`every day at one o'clock is  `+kind+`: "0 1 * * *"`)
		}
	}
}

// compression: a level belongs to its compression.
func (v *validator) compression() {
	b := v.c.Backup
	levels := map[string][2]int{"gz": {1, 9}, "lz4": {1, 12}, "zst": {-7, 22}, "none": {0, 0}}
	if r, ok := levels[b.Compress]; ok && b.CompressLevel != 0 && (b.CompressLevel < r[0] || b.CompressLevel > r[1]) {
		v.fail("backup.compress_level", b.Compress+" has no such level", "", "remove the line: the default is a good one")
	}
}
