package backup

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"manada/internal/cluster"
	"manada/internal/repo"
)

// gapped is a repository of segments of 1 MiB.
type gapped struct {
	*testing.T
	ArchiveOptions
}

func (g gapped) push(tl cluster.Timeline, from, to uint64) {
	g.Helper()
	for n := from; n <= to; n++ {
		if err := ArchivePush(g.Context(), g.ArchiveOptions, walFile(g.T, tl.Segment(cluster.LSN(n<<20), 1<<20), 7, 1)); err != nil {
			g.Fatal(err)
		}
	}
}

func (g gapped) remove(tl cluster.Timeline, n uint64) {
	g.Helper()
	have, err := findWAL(g.Context(), g.Storage, "archive/demo/15-1/"+fmt.Sprintf("%08X00000000", tl), tl.Segment(cluster.LSN(n<<20), 1<<20))
	if err != nil || len(have) != 1 {
		g.Fatalf("segment %d: %v, %v", n, have, err)
	}
	if err := g.Storage.Delete(g.Context(), "archive/demo/15-1/"+fmt.Sprintf("%08X00000000", tl)+"/"+have[0].String()); err != nil {
		g.Fatal(err)
	}
}

func (g gapped) backup(label string, tl cluster.Timeline, start, stop uint64) {
	g.Helper()
	info, err := repo.LoadBackupInfo(g.Context(), g.Storage, g.Stanza)
	if err != nil {
		g.Fatal(err)
	}
	at := func(n uint64) string { return tl.Segment(cluster.LSN(n<<20), 1<<20) }
	info.Add(repo.BackupEntry{Label: label, Type: repo.Full, Format: 5, DBID: 1, Online: true, ArchiveCheck: true,
		ArchiveStart: at(start), ArchiveStop: at(stop), LSNStart: cluster.LSN(start << 20).String(), LSNStop: cluster.LSN(stop<<20 + 9).String()})
	if err := repo.SaveBackupInfo(g.Context(), g.Storage, g.Stanza, info); err != nil {
		g.Fatal(err)
	}
}

func (g gapped) want(what string, retained bool, want ...Gap) {
	g.Helper()
	got, err := FindGaps(g.Context(), g.Storage, g.Stanza, retained)
	if err != nil {
		g.Fatal(err)
	}
	for i := range got {
		if got[i].Segments > 0 && got[i].Stored.IsZero() != (got[i].First == "000000010000000000000002") {
			g.Errorf("%s: %+v: when the WAL before it was archived", what, got[i])
		}
		got[i].Stored = want[min(i, len(want)-1)].Stored
	}
	if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
		g.Errorf("%s:\n got %+v\nwant %+v", what, got, want)
	}
}

// TestFindGaps: WAL that is missing anywhere from the oldest backup on is found,
// and what cannot be restored for that.
func TestFindGaps(t *testing.T) {
	const a, b, c = "20260101-000000F", "20260102-000000F", "20260103-000000F"
	g := gapped{t, archiveStanza(t)}
	g.want("nothing at all", false, []Gap{}...)
	g.push(1, 1, 10)
	g.want("no backup", false, []Gap{}...)
	g.backup(a, 1, 2, 3)
	g.backup(b, 1, 6, 8)
	g.want("all is there", false, []Gap{}...)
	g.remove(1, 1)
	g.want("WAL before every backup", false, []Gap{}...)
	g.remove(1, 9)
	nine := Gap{First: "000000010000000000000009", Last: "000000010000000000000009", Segments: 1, Backup: b, Until: "0/900000"}
	g.want("behind the newest backup", false, nine)
	g.remove(1, 5)
	five := Gap{First: "000000010000000000000005", Last: "000000010000000000000005", Segments: 1, Backup: a, Until: "0/500000", Covered: true}
	g.want("between backups", false, five, nine)
	g.remove(1, 4)
	five.First, five.Segments, five.Until = "000000010000000000000004", 2, "0/400000"
	g.want("all between backups", false, five, nine)
	g.want("as a retention leaves it", true, nine)
	g.push(1, 4, 5)
	g.remove(1, 7)
	seven := Gap{First: "000000010000000000000007", Last: "000000010000000000000007", Segments: 1, Backup: b, Until: "0/700000", Inside: true}
	g.want("inside of a backup", true, seven, nine)
	res, err := Verify(t.Context(), VerifyOptions{Storage: g.Storage, Stanza: g.Stanza})
	if err != nil || !slices.ContainsFunc(res.Problems, func(p Problem) bool { return p.Label == "" && p.File == seven.First }) {
		t.Errorf("verify: %+v, %v", res, err)
	}
	g.push(1, 7, 7)
	g.push(1, 9, 9)
	g.remove(1, 2)
	g.want("where a backup begins", false, Gap{First: "000000010000000000000002", Last: "000000010000000000000002", Segments: 1, Backup: a, Until: "0/200000", Inside: true, Covered: true})
	g.push(1, 2, 2)

	// A takeover in the middle of segment 8: the old timeline's 9 and 10 belong to nothing.
	g.push(2, 8, 12)
	lost := Gap{First: "00000002.history", Last: "00000002.history", Backup: b, Until: "0/800009"}
	g.want("a timeline whose history is not there", false, lost)
	path := filepath.Join(t.TempDir(), "00000002.history")
	if err := os.WriteFile(path, []byte("1\t0/880000\tno recovery target specified\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := ArchivePush(t.Context(), g.ArchiveOptions, path); err != nil {
		t.Fatal(err)
	}
	for _, n := range []uint64{8, 9, 10} {
		g.remove(1, n)
	}
	g.want("over the fork", false, []Gap{}...)
	g.remove(2, 8)
	g.want("at the fork", false, Gap{First: "000000020000000000000008", Last: "000000020000000000000008", Segments: 1, Backup: b, Until: "0/800000", Inside: true})
	g.push(2, 8, 8)
	g.backup(c, 1, 9, 9) // of the part of the old timeline that is on no line
	g.remove(2, 11)
	g.want("on the new timeline", false, Gap{First: "00000002000000000000000B", Last: "00000002000000000000000B", Segments: 1, Backup: b, Until: "0/B00000"})
}
