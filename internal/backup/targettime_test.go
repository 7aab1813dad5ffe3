package backup

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// accepted means the same to every PostgreSQL, in the zone Europe/Madrid.
var accepted = []string{
	"2026-11-22 14:30Z", "2026-11-22 14:30:00Z", "2026-11-22T14:30:00Z", "2026-11-22 14:30:00 z", "2026-11-22 14:30:00 UTC", "2026-11-22 14:30:00 GMT", "2026-11-22 14:30 utc",
	"2026-11-22 14:30:00+01", "2026-11-22 14:30:00 +01", "2026-11-22 14:30:00+01:00", "2026-11-22 14:30:00-0330", "2026-11-22 14:30:00+05:45", "2026-11-22 14:30:00+5", "2026-11-22 14:30:00-00:44:30",
	"2026-11-22 14:30:00", "2026-07-22 14:30:00", "2026-11-22 14:30", "2026-11-22", "20261122", "20261122T143000", "20261122T143000Z", "20261122T143000.25+02", "20261122T1430",
	"2026-11-22 14:30:00.123456", "2026-11-22 14:30:00.1", "2026-11-22 14:30:00.1234567+00", "2026-11-22 14:30:00.", "2026-11-22 4:30:00", "2026-1-2 03:04:05",
	"2026/11/22 14:30:00", "2026.11.22 14:30:00", "2026-11-22 02:30 PM", "2026-11-22 2:30pm", "2026-11-22 12:00 am", "2026-11-22 12:00:00 PM Europe/Madrid",
	"2026-11-22 24:00:00", "2026-11-22 23:59:60", "2026-11-22 14:30:00 Europe/Madrid", "2026-07-22 14:30:00 America/New_York", "2026-11-22 14:30 Etc/GMT+3", "2026-11-22 14:30:00 America/Argentina/Buenos_Aires",
	"Nov 22 2026 14:30", "Nov 22, 2026 14:30:00", "November 22 2026", "22 Nov 2026 14:30:00+01", "22-Nov-2026 14:30", "2026-Nov-22 14:30Z", "Sun Nov 22 14:30:00 2026", "Sunday, November 22, 2026 2:30 PM",
	"  2026-11-22 14:30:00+01  ", "2024-02-29 00:00:00", "1999-12-31 23:59:59.999999+00",
	"2026-10-25 02:30:00", "2026-10-25 01:59:59", "2026-10-25 03:00:00", "2026-03-29 02:30:00", "2026-03-29 01:59:59", "2026-03-29 03:00:00",
}

// refused means different things, or nothing.
var refused = []string{
	"2026-11-22 14:30:00 CET", "2026-07-22 14:30:00 CET", "2026-11-22 14:30:00 EST", "2026-11-22 14:30:00 JST", "2026-11-22 14:30:00 IST", "2026-11-22 14:30:00 PST", "2026-11-22 14:30:00CEST", "2026-11-22 14:30 Japan", "2026-11-22 14:30 EST5EDT",
	"2026-11-22 14:30:00 UTC+3", "2026-11-22 14:30 GMT-5", "2026-11-22 14:30 Europe/Nowhere", "2026-11-22 14:30 ../etc/passwd", "2026-11-22 14:30+16", "2026-11-22 14:30+01:75",
	"11/12/2026", "11/12/2026 14:30", "12.11.2026", "26-11-22", "2026-13-01", "2026-02-30", "2025-02-29", "2026-00-10", "0000-01-01", "2026-11-22 25:00", "2026-11-22 14:61", "2026-11-22 24:00:01", "2026-11-22 13:00 pm",
	"now", "today", "yesterday", "tomorrow", "epoch", "infinity", "", " ", "14:30", "2026-11-22 14:30 14:31", "2026-11-22x", "2026-11", "J2451187", "2026.326", "2026-11-22 14:30:00 BC", "2026-11-22 local", "Foo 22 2026",
}

// TestTargetsAreCertain needs no server: what is refused is refused, with words.
func TestTargetsAreCertain(t *testing.T) {
	madrid, err := time.LoadLocation("Europe/Madrid")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range refused {
		if got, err := ParseTarget(s, madrid); Code(err) != CodeOption || !strings.Contains(err.Error(), "Europe/Madrid") {
			t.Errorf("%q: %s, %v", s, got, err)
		}
	}
	for _, s := range accepted {
		got, err := ParseTarget(s, madrid)
		if err != nil {
			t.Errorf("%v", err)
		}
		if again, err := ParseTarget(FormatTarget(got), nil); err != nil || !again.Equal(got) {
			t.Errorf("%q is written as %s, which is %s, %v", s, FormatTarget(got), again, err)
		}
	}
	for s, zoned := range map[string]bool{"2026-11-22 14:30": false, "2026-11-22": false, "2026-11-22 14:30Z": true, "2026-11-22 14:30 Europe/Madrid": true, "2026-11-22 14:30-05": true} {
		if _, err := ParseTarget(s, nil); (err == nil) != zoned {
			t.Errorf("%q where no zone is known: %v", s, err)
		}
	}
	t.Setenv("TZ", "CET-1CEST")
	if LocalZone() != nil {
		t.Error("a zone that is not known here is taken for one")
	}
	t.Setenv("TZ", "America/New_York")
	if LocalZone() == nil {
		t.Error("a known zone is not")
	}
}

// targetTimes: PostgreSQL understands the same moment, also around the days on
// which clocks are put forward and back.
func targetTimes(t *testing.T, c *pgCluster) {
	conn, err := c.connect(c.ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(c.ctx)
	for _, zone := range []string{"Europe/Madrid", "America/New_York", "Australia/Lord_Howe", "UTC", "Asia/Kathmandu", "America/St_Johns", "Pacific/Apia"} {
		loc, err := time.LoadLocation(zone)
		if err != nil {
			t.Fatal(err)
		}
		texts := accepted
		for range 500 {
			// Half of the tries are within two days of a change of the clocks.
			at := time.Unix(rand.Int64N(2_000_000_000), 0).In(loc)
			if _, next := at.ZoneBounds(); !next.IsZero() && rand.IntN(2) == 0 {
				at = next.Add(time.Duration(rand.Int64N(int64(96*time.Hour))) - 48*time.Hour)
			}
			texts = append(texts, at.Format("2006-01-02 15:04:05"))
		}
		theirs := understood(t, c, conn, zone, texts)
		for i, s := range texts {
			ours, err := ParseTarget(s, loc)
			if err != nil || ours.UnixMicro() != theirs[i] {
				t.Errorf("%q in %s: %s, %v; PostgreSQL: %s", s, zone, ours.UTC(), err, time.UnixMicro(theirs[i]).UTC())
			}
		}
	}
}

// understood asks PostgreSQL for the times, in microseconds since 1970.
func understood(t *testing.T, c *pgCluster, conn *pgconn.PgConn, zone string, texts []string) []int64 {
	t.Helper()
	quoted := make([]string, len(texts))
	for i, s := range texts {
		quoted[i] = fmt.Sprintf("(%d, '%s'::timestamptz)", i, s)
	}
	res, err := conn.Exec(c.ctx, "set timezone = '"+zone+"'; select (extract(epoch from x.t) * 1000000)::bigint from (values "+strings.Join(quoted, ",")+") x(n, t) order by n").ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var out []int64
	for _, row := range res[1].Rows {
		n, err := strconv.ParseInt(string(row[0]), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, n)
	}
	return out
}
