package proxy_test

import (
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"manada/internal/proxy/pool/rules"
	"manada/internal/proxy/session"
	"manada/test/conversation"
)

// sized is a conversation in which a Query, a Parse, a Bind, data of a COPY in both
// directions and a row have just so many bytes, with their types and lengths.
func sized(t *testing.T, n int) *conversation.Conversation {
	t.Helper()
	const header = 5
	pad := func(around string) string { return fmt.Sprintf("{x*%d}", n-header-len(around)) }
	text := fmt.Sprintf("== messages of %d bytes\n", n) +
		"Q select length('" + pad("select length('')\x00") + "')\nwait\n" +
		"P s select length('" + pad("s\x00select length('')\x00\x00\x00") + "')\nS\nwait\nB - s\nE -\nS\nwait\n" +
		"P - select length($1), $1\nB - - " + pad("\x00\x00"+"\x00\x01\x00\x00"+"\x00\x01"+"\x00\x00\x00\x00"+"\x00\x00") + "\nE -\nS\nwait\n" +
		"Q copy u from stdin\nwait G\n" + `d 1\t` + pad("1\t\n") + `\n` + "\nd 2\\ttwo\\n\nc\nwait\n" +
		fmt.Sprintf("Q copy (select repeat('y', %d)) to stdout\nwait\n", n-header-1) +
		fmt.Sprintf("Q select repeat('y', %d) from generate_series(1, 3)\nwait\n", n-header-2-4) +
		"Q select i, length(s) from u order by i\nwait\n"
	all, err := conversation.Parse("sizes", text)
	if err != nil {
		t.Fatal(err)
	}
	b, err := (&conversation.Player{}).Bytes(all[0])
	exact := 0
	for len(b) > header && err == nil {
		total := 1 + int(binary.BigEndian.Uint32(b[1:]))
		if total == n {
			exact++
		}
		b = b[total:]
	}
	if exact != 4 || err != nil {
		t.Fatalf("%d messages of %d bytes, %v", exact, n, err)
	}
	return all[0]
}

// Messages that just fill a buffer, a record of TLS or a socket, or do not quite, or begin
// another one: what comes back is as from PostgreSQL itself.
func TestSizesOfMessages(t *testing.T) {
	for _, mode := range []rules.Mode{rules.Session, rules.Auto} {
		for _, secure := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s tls %v", mode, secure), func(t *testing.T) {
				f := start(t, poolOf(mode, 1))
				s := newStage(t, f)
				to, r := s.at(f.Addr(session.ReadWrite).String()), random(t)
				if secure {
					to.TLS = &tls.Config{InsecureSkipVerify: true}
				}
				for _, n := range []int{4096, 8192, 16384, 65536} {
					for _, n := range []int{n - 1, n, n + 1} {
						c := sized(t, n)
						if d := s.differences(t, to, c, r); d != "" {
							t.Error(d)
						}
						if got := s.want(t, c).Letters[0]; strings.Contains(got, "E") || len(got) < 30 {
							t.Fatalf("%d: PostgreSQL answers %s", n, got)
						}
					}
				}
			})
		}
	}
}
