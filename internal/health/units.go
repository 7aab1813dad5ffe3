package health

import (
	"fmt"
	"time"
)

// bytesOf writes a size in binary units, in at most 8 characters, in powers
// of 1024 and with the unit names that PostgreSQL uses: "16.0 MB".
func bytesOf(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	f := float64(n)
	unit := ""
	for _, unit = range []string{"kB", "MB", "GB", "TB", "PB"} {
		f /= 1024
		if f < 999.95 {
			break
		}
	}
	return fmt.Sprintf("%.1f %s", f, unit)
}

// duration writes a length of time with the precision that matters to a
// reader: "0.4s", "12s", "14m", "2h", "9d".
func duration(d time.Duration) string {
	switch {
	case d < 0:
		d = 0
		fallthrough
	case d < 9950*time.Millisecond:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case d < 2*time.Minute:
		return fmt.Sprintf("%.0fs", d.Seconds())
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

func lastHeard(heard bool, d time.Duration) string {
	if !heard {
		return "never heard"
	}
	return "last heard " + duration(d) + " ago"
}
