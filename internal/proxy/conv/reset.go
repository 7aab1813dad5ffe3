package conv

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strconv"
	"unicode/utf8"

	"manada/internal/proxy/classify"
	"manada/internal/proxy/wire"
)

// The settings of a client's start-up packet are given to its servers by SET, so that
// RESET would go back to what the server began with. What gives them again stands
// behind each statement that sets one back: within its text, or in its batch, and so
// in its transaction. The answers to it are for nobody.

// noResetAll are the settings that RESET ALL leaves as they are.
var noResetAll = []string{"role", "session_authorization"}

// again is what gives a client's own values again behind a statement that sets settings back.
func (s *set) again(r classify.Reset) (sql []string) {
	for _, v := range s.first {
		switch {
		case r.Name != v.name && (r.Name != "" || slices.Contains(noResetAll, v.name)):
		case r.Local:
			sql = append(sql, forTransaction(v.sql))
		default:
			sql = append(sql, v.sql)
		}
	}
	return sql
}

// behind is what has to be executed behind a statement of a batch.
func (s *set) behind(is about) (sql []string) {
	for _, r := range is.Resets {
		sql = append(sql, s.again(r)...)
	}
	return sql
}

// edit puts a text into the place of a part of another one.
type edit struct {
	classify.Span
	text string
}

// rewritten is a Query that was sent otherwise than the client has it, or that does
// something to prepared statements.
type rewritten struct {
	edits   []edit // in order
	added   []int  // which of its statements the client knows nothing of
	done    int    // statements
	hidden  int    // of these
	aliases []alias
	deeds   []deed
}

// rewrite finds what is to be changed in a client's text; nil: nothing.
func (c *Conv) rewrite(r *run, is about) *rewritten {
	if len(is.Mute)+len(is.Resets)+len(is.Prepared) == 0 {
		return nil
	}
	w := muted(is.Mute)
	if l := c.links[Main]; l != nil && len(is.Prepared) > 0 {
		before := l.q.n
		c.aliased(r, w, is.Prepared)
		c.apart(l, before, r.fx)
	}
	for _, r := range is.Resets {
		if is.Kind == classify.Discard { // is not to stand among others
			break
		}
		for _, sql := range c.set.again(r) {
			w.added = append(w.added, r.Nth+1+len(w.added))
			w.edits = append(w.edits, edit{classify.Span{From: r.End, To: r.End}, "; " + sql})
		}
	}
	if w.edits == nil && w.deeds == nil {
		return nil
	}
	slices.SortStableFunc(w.edits, func(a, b edit) int { return a.From - b.From })
	return w
}

// text is the client's with the changes.
func (w *rewritten) text(sql []byte) []byte {
	var out []byte
	last := 0
	for _, e := range w.edits {
		out = append(append(out, sql[last:e.From]...), e.text...)
		last = e.To
	}
	return append(out, sql[last:]...)
}

// message is the client's, with the text at at changed.
func (w *rewritten) message(msg []byte, at int) []byte {
	out := append(append([]byte(nil), msg[:at]...), w.body(msg[at:])...)
	binary.BigEndian.PutUint32(out[1:], uint32(len(out)-1))
	return out
}

// body is a text, and what stands behind it, with the changes.
func (w *rewritten) body(body []byte) []byte {
	sql, rest, _ := bytes.Cut(body, zero)
	return append(append(w.text(sql), 0), rest...)
}

// answered notes an answer to the Query. It says whether it is to a statement that was
// added, and what one of the client's has done.
func (w *rewritten) answered(typ byte) (added bool, deeds []deed) {
	added = slices.Contains(w.added, w.done)
	if typ != wire.TypeComplete {
		return added, nil
	}
	for _, a := range w.deeds {
		if !added && a.Nth == w.done-w.hidden {
			deeds = append(deeds, a)
		}
	}
	if w.done++; added {
		w.hidden++
	}
	return added, deeds
}

// place writes an error of the Query anew with the position that it has in the
// client's text; nil: it has none that is another one.
func (w *rewritten) place(body, sql []byte) []byte {
	at, from, to := 0, 0, 0
	for i := 0; i < len(body) && body[i] != 0; {
		n := bytes.IndexByte(body[i:], 0)
		if n < 0 {
			return nil
		}
		if body[i] == 'P' {
			from, to = i+1, i+n
			at, _ = strconv.Atoi(string(body[from:to]))
		}
		i += n + 1
	}
	if was := w.was(at, sql); at > 0 && was != at {
		return append(strconv.AppendInt(append([]byte(nil), body[:from]...), int64(was), 10), body[to:]...)
	}
	return nil
}

// was is the position of a character before the changes; 1 is the first.
func (w *rewritten) was(at int, sql []byte) int {
	shift := 0
	for _, e := range w.edits {
		from := utf8.RuneCount(sql[:e.From]) + 1
		old, now := utf8.RuneCount(sql[e.From:e.To]), utf8.RuneCountInString(e.text)
		switch {
		case at+shift < from:
			return at + shift
		case at+shift < from+now:
			return from
		}
		shift += old - now
	}
	return at + shift
}

// inject executes a statement of ours in the client's batch.
func (c *Conv) inject(r *run, l *Link, sql string, n *note) {
	r.flush()
	for _, m := range []struct {
		typ  byte
		k    kind
		body string
	}{
		{'C', closing, "Smanada:t\x00"}, // it may be there yet, of a batch that has failed
		{'P', parse, "manada:t\x00" + sql + "\x00\x00\x00"},
		{'B', bind, "manada:p\x00manada:t\x00\x00\x00\x00\x00\x00\x00"},
		{'E', execute, "manada:p\x00\x00\x00\x00\x00"},
		{'C', closing, "Pmanada:p\x00"},
	} {
		e := entry{kind: m.k, ours: true}
		if m.k == execute {
			e.note = n
		}
		l.sent(e)
		r.fx.say(Main, m.typ, []byte(m.body))
	}
}
