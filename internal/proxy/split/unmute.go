package split

import (
	"bytes"
	"encoding/binary"

	"manada/internal/proxy/classify"
)

var minMessages = []byte("client_min_messages")

// mayMute is quick and errs on the safe side.
func mayMute(msg []byte) bool {
	for i := 0; i+len(minMessages) <= len(msg); i++ {
		if msg[i]|0x20 == 'c' && bytes.EqualFold(msg[i:i+len(minMessages)], minMessages) {
			return true
		}
	}
	return false
}

// unmute writes a message anew with warnings no longer hidden (finding H9): the
// one that a commit was not replicated has to reach the proxy. at is where the
// text begins; nil: there is nothing to change.
func unmute(msg []byte, at int, spans []classify.Span) []byte {
	if len(spans) == 0 {
		return nil
	}
	sql, _ := cstring(msg[at:])
	out := append([]byte(nil), msg[:at]...)
	out = append(out, unmuteText(sql, spans)...)
	out = append(out, msg[at+len(sql):]...)
	binary.BigEndian.PutUint32(out[1:], uint32(len(out)-1))
	return out
}

func unmuteText(sql []byte, spans []classify.Span) []byte {
	if len(spans) == 0 {
		return sql
	}
	var out []byte
	last := 0
	for _, s := range spans {
		out = append(append(out, sql[last:s.From]...), "'warning'"...)
		last = s.To
	}
	return append(out, sql[last:]...)
}
