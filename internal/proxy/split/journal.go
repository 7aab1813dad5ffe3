package split

import "slices"

// Setting is a SET or RESET that the primary has accepted.
type Setting struct {
	Name string // "" is everything
	SQL  string
}

// Journal holds the settings of a session in the order in which they were made,
// each only as it was made last. DateStyle is two settings under one name: a SET
// may change one of them only, so that those of other texts stay.
type Journal struct {
	entries []entry
	seq     uint64
}

type entry struct {
	Setting
	seq uint64
}

func (j *Journal) add(s Setting) {
	j.entries = slices.DeleteFunc(j.entries, func(e entry) bool {
		return s.Name == "" || e.Name == s.Name && (s.Name != "datestyle" || e.SQL == s.SQL)
	})
	j.seq++
	j.entries = append(j.entries, entry{s, j.seq})
}

// Since lists what a connection lacks that has been told everything up to seq (0:
// nothing yet), and returns the seq that it has afterwards.
func (j *Journal) Since(seq uint64) (sql []string, now uint64) {
	if seq == j.seq {
		return nil, seq
	}
	for _, e := range j.entries {
		if e.seq > seq {
			sql = append(sql, e.SQL)
		}
	}
	return sql, j.seq
}
