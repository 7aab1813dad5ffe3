package postgres

import (
	"errors"
	"fmt"

	"manada/internal/cluster"
)

// walWalk is a walk along the records of pg_wal. Each record is believed only
// when it names the one before it (xl_prev), for what lies behind the end of WAL
// in a recycled segment is made of real records, with right checksums, of an
// older use of the file. Only the first of a walk is not checked like that, so a
// walk begins at a record that is known to be real.
type walWalk struct {
	r    *walReader
	at   cluster.LSN      // here the next record is to begin
	tli  cluster.Timeline // of the file that holds the last one, 0: none was found
	last cluster.LSN      // where that began
}

// step goes on by one record, read from the newest timeline that has it;
// errNoRecord at the end.
func (w *walWalk) step() error {
	for _, t := range newerFirst(w.r.timelines(w.at), w.tli) {
		rec, err := w.r.read(t, w.at)
		if err == nil && w.last != 0 && rec.prev != w.last {
			err = errNoRecord
		}
		if err == nil {
			w.take(rec)
			return nil
		}
		if !errors.Is(err, errNoRecord) {
			return fmt.Errorf("read WAL at %s: %w", w.at, err)
		}
	}
	return errNoRecord
}

func (w *walWalk) take(rec record) {
	w.at, w.tli, w.last = rec.next, rec.tli, rec.start
	if seg := cluster.LSN(w.r.segSize); rec.isSwitch && w.at%seg != 0 {
		w.at += seg - w.at%seg
	}
}

// toEnd goes on as far as there are records.
func (w *walWalk) toEnd() error {
	for {
		if err := w.step(); errors.Is(err, errNoRecord) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// to goes on to a position and says whether a record ends exactly there.
func (w *walWalk) to(known cluster.LSN) (bool, error) {
	for w.at < known {
		if err := w.step(); errors.Is(err, errNoRecord) {
			return false, nil
		} else if err != nil {
			return false, err
		}
	}
	return w.at == known || w.r.behindHeader(w.at) == w.r.behindHeader(known), nil
}

// behindHeader is where the first record can begin that does not begin before
// at: PostgreSQL names the start of a page now so, now without its header.
func (r *walReader) behindHeader(at cluster.LSN) cluster.LSN {
	header := cluster.LSN(walShortHeader)
	if uint64(at)%r.segSize < r.page {
		header = walLongHeader
	}
	return max(at, r.pageOf(at)+header)
}

// end finds where the WAL ends and the timeline of the file that holds the last
// record, 0 when there is none. At redo a record begins, from which recovery
// begins; all before known has been replayed (0: nothing is known). The walk
// begins shortly before known, and at redo where that leads nowhere.
func (r *walReader) end(redo, known cluster.LSN) (cluster.LSN, cluster.Timeline, error) {
	defer r.close()
	if known > redo {
		w, err := r.reaching(redo, known)
		if err != nil {
			return known, 0, err
		}
		if w != nil {
			err = w.toEnd()
			return w.at, w.tli, err
		}
	}
	w := &walWalk{r: r, at: redo}
	err := w.toEnd()
	return w.at, w.tli, err
}

// reaching is a walk that stands at known, come from a record on the last page
// on which one begins before it; nil when none leads there.
func (r *walReader) reaching(redo, known cluster.LSN) (*walWalk, error) {
	for page := r.pageOf(known - 1); page > redo; page -= cluster.LSN(r.page) {
		begun := false
		for _, t := range r.timelines(page) {
			at, err := r.firstOn(t, page)
			if err == nil && at < known {
				begun = true
				var rec record
				if rec, err = r.read(t, at); err == nil {
					w := &walWalk{r: r}
					w.take(rec)
					there, err := w.to(known)
					if there || err != nil {
						return w, err
					}
				}
			}
			if err != nil && !errors.Is(err, errNoRecord) {
				return nil, fmt.Errorf("read WAL at %s: %w", page, err)
			}
		}
		if begun {
			return nil, nil
		}
	}
	return nil, nil
}
