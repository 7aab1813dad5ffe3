package guide

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

var segmentName = regexp.MustCompile(`^([0-9A-F]{8})([0-9A-F]{8})([0-9A-F]{8})-[0-9a-f]{40}`)

// archiveWithoutGap: from the first segment to the last every one is in the
// repository, on one timeline or another, and the newest timeline has its
// history. The archiver may be a moment behind.
func (g *guide) archiveWithoutGap() {
	g.Helper()
	var why string
	g.until("an archive without a gap", func() bool { why = g.gap(); return why == "" })
	if why != "" {
		g.Fatal(why)
	}
}

func (g *guide) gap() string {
	root := filepath.Join(g.Dir, "pgbackrest_repo", "archive", "demo")
	segments, newest := map[int64]bool{}, 0
	histories := map[int]bool{}
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if m := segmentName.FindStringSubmatch(d.Name()); m != nil {
			tl, _ := strconv.ParseInt(m[1], 16, 64)
			log, _ := strconv.ParseInt(m[2], 16, 64)
			seg, _ := strconv.ParseInt(m[3], 16, 64)
			segments[log<<8+seg] = true
			newest = max(newest, int(tl))
		}
		if tl, ok := strings.CutSuffix(d.Name(), ".history"); ok {
			n, _ := strconv.ParseInt(tl, 16, 64)
			histories[int(n)] = true
		}
		return nil
	})
	if err != nil {
		return err.Error()
	}
	if len(segments) < 2 {
		return fmt.Sprintf("only %d segments are archived", len(segments))
	}
	var all []int64
	for s := range segments {
		all = append(all, s)
	}
	slices.Sort(all)
	for i := 1; i < len(all); i++ {
		if all[i] != all[i-1]+1 {
			return fmt.Sprintf("between segments %X and %X the archive has a gap", all[i-1], all[i])
		}
	}
	if newest > 1 && !histories[newest] {
		return fmt.Sprintf("the history of timeline %d is not archived", newest)
	}
	return ""
}
