package backup

import (
	"fmt"
	"math"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // zones by their names, also where the system has none
)

// A target time is what PostgreSQL takes for recovery_target_time, as far as it
// means the same to everybody: neither orders of day and month that hang on
// DateStyle, nor abbreviations of zones, which hang on timezone_abbreviations,
// nor what PostgreSQL itself refuses there ("now" and the like).
var (
	zoneRE   = regexp.MustCompile(`(?i)^(.*?[0-9mM])\s*\b?(z|zulu|utc|gmt)$`)
	namedRE  = regexp.MustCompile(`^(.*\S)\s+([A-Za-z_]+(?:/[A-Za-z0-9_+\-]+)+)$`)
	offsetRE = regexp.MustCompile(`^(.*[0-9mM]|.*:[0-9.]+)\s*([+-])(\d{1,2})(?::?(\d{2})(?::?(\d{2}))?)?$`)
	clockRE  = regexp.MustCompile(`(?i)(?:^|[\sT])(\d{1,2}):(\d{2})(?::(\d{2})(?:\.(\d*))?)?\s*(am|pm)?(?:\s|$)`)
	packedRE = regexp.MustCompile(`(?i)^(\d{8})T(\d{2})(\d{2})(?:(\d{2})(?:\.(\d*))?)?$`)
	dateRE   = regexp.MustCompile(`^(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})$`)
	digitsRE = regexp.MustCompile(`^(\d{4})(\d{2})(\d{2})$`)
	wordsRE  = regexp.MustCompile(`^(?:([A-Za-z]+)[- ](\d{1,2})|(\d{1,2})[- ]([A-Za-z]+))[- ](\d{4})$|^(\d{4})[- ]([A-Za-z]+)[- ](\d{1,2})$`)
	weekRE   = regexp.MustCompile(`(?i)^(?:mon(?:day)?|tue(?:s(?:day)?)?|wed(?:nesday|s)?|thu(?:rs?(?:day)?)?|fri(?:day)?|sat(?:urday)?|sun(?:day)?)[\s,]+`)
)

// ParseTarget reads a target time. Without a zone it is in loc; nil: a zone has
// to be given.
func ParseTarget(s string, loc *time.Location) (time.Time, error) {
	t, why := parseTarget(s, loc)
	if why != "" {
		return time.Time{}, fail(CodeOption, "Write it as '2026-01-31 13:45:00+01' or '2026-01-31 13:45:00 Europe/Madrid'.", "target time %q: %s", s, why)
	}
	return t, nil
}

// FormatTarget writes a time so that it means the same wherever it is read.
func FormatTarget(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.999999") + "+00" }

// LocalZone is the zone of this process: nil when $TZ names one that is not
// known here, such as CET-1CEST, which would be taken for UTC.
func LocalZone() *time.Location {
	tz, set := os.LookupEnv("TZ")
	tz = strings.TrimPrefix(tz, ":")
	if !set || tz == "" || strings.HasPrefix(tz, "/") {
		return time.Local
	}
	if _, err := time.LoadLocation(tz); err != nil {
		return nil
	}
	return time.Local
}

func parseTarget(s string, loc *time.Location) (t time.Time, why string) {
	rest, zone, why := cutZone(strings.TrimSpace(s))
	if why != "" {
		return t, why
	}
	if zone != nil {
		loc = zone
	}
	if loc == nil {
		return t, "it has no zone, and that of this process is not known here"
	}
	c, rest, why := cutClock(rest)
	if why != "" {
		return t, why
	}
	year, month, day, why := parseDate(strings.Trim(strings.TrimSpace(rest), ","))
	if why != "" {
		return t, why
	}
	return inZone(time.Date(year, month, day, c.hour, c.minute, c.second, 0, time.UTC).Add(c.fraction), loc), ""
}

// cutZone takes the zone from the end; nil when there is none.
func cutZone(s string) (rest string, zone *time.Location, why string) {
	if m := zoneRE.FindStringSubmatch(s); m != nil {
		return m[1], time.UTC, ""
	}
	if m := namedRE.FindStringSubmatch(s); m != nil {
		loc, err := time.LoadLocation(m[2])
		if err != nil {
			return "", nil, fmt.Sprintf("there is no zone %q", m[2])
		}
		return m[1], loc, ""
	}
	m := offsetRE.FindStringSubmatch(s)
	if m == nil || !strings.Contains(m[1], ":") && !packedRE.MatchString(m[1]) && m[2] == "-" {
		return s, nil, "" // of a date alone the end is no offset
	}
	n := func(i int) int { v, _ := strconv.Atoi(m[i]); return v }
	seconds := n(3)*3600 + n(4)*60 + n(5)
	if n(3) > 15 || n(4) > 59 || n(5) > 59 {
		return "", nil, "its offset is out of range"
	}
	if m[2] == "-" {
		seconds = -seconds
	}
	return m[1], time.FixedZone("", seconds), ""
}

// clock is a time of day; the fraction is of a second, to the microsecond.
type clock struct {
	hour, minute, second int
	fraction             time.Duration
}

// cutClock takes the time of day out of the rest: midnight when there is none.
func cutClock(s string) (c clock, rest, why string) {
	if m := packedRE.FindStringSubmatch(s); m != nil {
		c, why = clockOf(m[2], m[3], m[4], m[5], "")
		return c, m[1], why
	}
	at := clockRE.FindStringSubmatchIndex(s)
	if at == nil {
		if strings.Contains(s, ":") {
			return c, "", "its time of day is not understood"
		}
		return c, s, ""
	}
	part := func(i int) string {
		if at[2*i] < 0 {
			return ""
		}
		return s[at[2*i]:at[2*i+1]]
	}
	c, why = clockOf(part(1), part(2), part(3), part(4), strings.ToLower(part(5)))
	return c, s[:at[0]] + " " + s[at[1]:], why
}

func clockOf(hour, minute, second, fraction, half string) (c clock, why string) {
	c.hour, _ = strconv.Atoi(hour)
	c.minute, _ = strconv.Atoi(minute)
	c.second, _ = strconv.Atoi(second)
	if fraction != "" {
		f, _ := strconv.ParseFloat("0."+fraction, 64)
		c.fraction = time.Duration(math.RoundToEven(f*1e6)) * time.Microsecond
	}
	if half != "" {
		if c.hour < 1 || c.hour > 12 {
			return c, "an hour with am or pm is 1 to 12"
		}
		c.hour %= 12
		if half == "pm" {
			c.hour += 12
		}
	}
	end := c.hour == 24 && c.minute == 0 && c.second == 0 && c.fraction == 0
	if c.hour > 23 && !end || c.minute > 59 || c.second > 60 || c.second == 60 && c.fraction > 0 {
		return c, "its time of day is out of range"
	}
	return c, ""
}

var months = []string{"january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november", "december"}

func parseDate(s string) (year int, month time.Month, day int, why string) {
	s = weekRE.ReplaceAllString(strings.Join(strings.FieldsFunc(s, func(c rune) bool { return c == ' ' || c == ',' || c == '\t' }), " "), "")
	var y, m, d string
	if x := dateRE.FindStringSubmatch(s); x != nil {
		y, m, d = x[1], x[2], x[3]
	} else if x := digitsRE.FindStringSubmatch(s); x != nil {
		y, m, d = x[1], x[2], x[3]
	} else if x := wordsRE.FindStringSubmatch(s); x != nil {
		name := x[1] + x[4] + x[7]
		y, d = x[5]+x[6], x[2]+x[3]+x[8]
		for i, full := range months {
			if n := strings.ToLower(name); n == full || n == full[:3] || n == "sept" && i == 8 {
				m = strconv.Itoa(i + 1)
			}
		}
	} else if regexp.MustCompile(`^\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}$`).MatchString(s) {
		return 0, 0, 0, "which is the day and which the month is not certain: begin with the year"
	}
	year, _ = strconv.Atoi(y)
	n, _ := strconv.Atoi(m)
	day, _ = strconv.Atoi(d)
	if year == 0 || n < 1 || n > 12 || day < 1 || time.Date(year, time.Month(n), day, 0, 0, 0, 0, time.UTC).Day() != day {
		return 0, 0, 0, "it is no time that is understood here for certain; of zones, only UTC, offsets and names such as Europe/Madrid are"
	}
	return year, time.Month(n), day, ""
}

// inZone is the moment at which clocks in the zone show what wall shows in UTC,
// as PostgreSQL chooses it: of a time that comes twice the second, and one that
// is left out is as if the clocks had not been put forward yet.
func inZone(wall time.Time, loc *time.Location) time.Time {
	offset := func(at time.Time) time.Duration {
		_, s := at.In(loc).Zone()
		return time.Duration(s) * time.Second
	}
	before, after := offset(wall.Add(-24*time.Hour)), offset(wall.Add(24*time.Hour))
	early, late := wall.Add(-before), wall.Add(-after)
	switch okEarly, okLate := offset(early) == before, offset(late) == after; {
	case okLate:
		return late
	case okEarly, before != after:
		return early
	}
	return wall.Add(-offset(late)) // two changes within two days
}
