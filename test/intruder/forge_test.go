package intruder

import (
	"bytes"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"manada/internal/cluster"
)

// forges: junk under the name of WAL. From who does not lead, of what is still to
// come, or with another content than the name says, nothing is stored. What a
// thief of the leader's own identity stores before the leader does is told, with
// the command that mends it.
func (s *site) forges() {
	st, err := s.Status(s.ctx)
	must(s, err)
	other := "master"
	if st.Primary == other {
		other = "slave"
	}
	leader := copied(s, "leader", s.cfgs[st.Primary].IdentityDir())
	standby := copied(s, "standby", s.cfgs[other].IdentityDir())
	_, err = s.Value(s.ctx, s.DSN(), "select pg_logical_emit_message(true, 'test', 'something')")
	must(s, err)
	now, err := s.Value(s.ctx, s.DSN(), "select pg_walfile_name(pg_current_wal_lsn())")
	must(s, err)
	b, err := os.ReadFile(filepath.Join(s.Data, st.Primary, "pgdata", "pg_wal", now))
	must(s, err)
	size := uint64(len(b))
	tl, number, _ := cluster.ParseSegment(now, size)
	later := tl.Segment(cluster.LSN((number+3)*size), size)
	at := func(name string) []byte { // a segment that begins as it should
		c := bytes.Clone(b)
		_, n, _ := cluster.ParseSegment(name, size)
		for i := range 8 {
			c[8+i] = byte(n * size >> (8 * i))
		}
		c[len(c)-1]++
		return c
	}
	for _, try := range []struct {
		what string
		person
		name, as string
		content  []byte
	}{
		{"junk", leader, now, now, []byte("junk")},
		{"another place", leader, now, now, at(later)},
		{"still to come", leader, later, later, at(later)},
		{"of a timeline to come", leader, (tl + 1).Segment(0, size), (tl + 1).Segment(0, size), at((tl + 1).Segment(0, size))},
		{"of who does not lead", standby, now, now, at(now)},
		{"a history to come", leader, "", (tl + 1).HistoryFile(), []byte("1\t0/3000000\tno reason\n")},
		{"a history of who does not lead", standby, "", tl.HistoryFile(), []byte("1\t0/3000000\tno reason\n")},
	} {
		if status, said := s.archive(try.person, try.as, try.content); status != http.StatusForbidden {
			s.Errorf("%s: status %d, %s", try.what, status, said)
		}
	}
	if status, said := s.archive(leader, now, at(now)); status != http.StatusNoContent {
		s.Fatalf("the segment that is being written: status %d, %s", status, said)
	}
	s.writesWAL()
	var hint string
	s.eventually("word of the other file", func() string {
		var text string
		if text, hint = s.condition("M-B15"); !strings.Contains(text, now) {
			return fmt.Sprintf("the condition %q", text)
		}
		return ""
	})
	command := "manada backups set-aside " + now
	if !strings.Contains(hint, "on backup:") || !strings.Contains(hint, command) {
		s.Errorf("hint %q", hint)
	}
	out, err := s.Manada(s.ctx, strings.Fields(command)[1:]...)
	if err != nil || !strings.Contains(out, "manada/set-aside/") {
		s.Fatalf("%s: %v\n%s", command, err, out)
	}
	s.writesWAL() // PostgreSQL tries again at once
	s.wantOK("after the junk was set aside")
	b, err = os.ReadFile(filepath.Join(s.Data, st.Primary, "pgdata", "pg_wal", now))
	must(s, err)
	sum := sha1.Sum(b)
	found, err := filepath.Glob(filepath.Join(s.Data, "backup", "repo", "archive", "herd", "*", now[:16], now+"-*"))
	if err != nil || len(found) != 1 || !strings.Contains(found[0], hex.EncodeToString(sum[:])) {
		s.Errorf("the archive has %v, want the content %x", found, sum)
	}
}

// archive stores a file of WAL uncompressed.
func (s *site) archive(p person, name string, content []byte) (status int, said string) {
	s.Helper()
	ids, err := filepath.Glob(filepath.Join(s.Data, "backup", "repo", "archive", "herd", "*-*"))
	if err != nil || len(ids) != 1 {
		s.Fatalf("archives %v, %v", ids, err)
	}
	path := filepath.Base(ids[0]) + "/" + name
	if !strings.HasSuffix(name, ".history") {
		sum := sha1.Sum(content)
		path = fmt.Sprintf("%s/%s/%s-%x", filepath.Base(ids[0]), name[:16], name, sum)
	}
	return s.send(p, http.MethodPut, "/blob/archive/herd/"+path, bytes.NewReader(content))
}
