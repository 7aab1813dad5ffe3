package pgbackrest

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// stanzaName is what a stanza of a herd may be called.
var stanzaName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,39}$`)

// words are the values that an option has; one that is not named takes any.
var words = map[string][]string{
	"compress-type":     {"none", "gz", "lz4", "zst"},
	"log-level-console": logLevels,
	"log-level-stderr":  logLevels,
	"archive-mode":      {"preserve", "off"},
	"target-action":     {"pause", "promote", "shutdown"},
	"output":            {"text", "json"},
}

var bounds = map[string][2]int{
	"repo-retention-full": {1, 9999}, "repo-retention-diff": {1, 9999}, "repo-retention-archive": {1, 9999},
	"process-max": {1, 64}, "compress-level": {-7, 22},
}

// check says what is wrong with a value, and what is right.
func (o Option) check(value string) (what, want string) {
	switch {
	case o.kind == boolean && value != "y" && value != "n":
		return fmt.Sprintf("%q is neither y nor n", value), "y or n"
	case o.Name == "compress-type" && value == "bz2":
		return "bz2 is read, but not written", strings.Join(words["compress-type"], ", ")
	case words[o.Name] != nil && !contains(words[o.Name], value):
		return fmt.Sprintf("%q is not allowed", value), "one of " + strings.Join(words[o.Name], ", ")
	case (o.Name == "repo-path" || o.Name == "pg-path") && !strings.HasPrefix(value, "/"):
		return fmt.Sprintf("%q is not absolute", value), "a path that begins with /"
	case o.Name == "archive-timeout":
		if _, err := seconds(value); err != nil {
			return err.Error(), "seconds, or a number with s, m or h"
		}
	}
	b, bounded := bounds[o.Name]
	if o.kind != number {
		return "", ""
	}
	n, err := strconv.Atoi(value)
	if err != nil {
		return fmt.Sprintf("%q is no whole number", value), ""
	}
	if bounded && (n < b[0] || n > b[1]) {
		return fmt.Sprintf("%d is out of range", n), fmt.Sprintf("%d to %d", b[0], b[1])
	}
	return "", ""
}

// seconds reads a time as pgBackRest writes it: seconds, which may have
// fractions, or a number with a unit.
func seconds(s string) (time.Duration, error) {
	if n, err := strconv.ParseFloat(s, 64); err == nil && n > 0 {
		return time.Duration(n * float64(time.Second)), nil
	}
	if d, err := time.ParseDuration(s); err == nil && d > 0 {
		return d, nil
	}
	return 0, fmt.Errorf("%q is no time", s)
}

func contains(list []string, s string) bool { return slices.Contains(list, s) }
