package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func packet(code uint32, rest string) []byte {
	return append(binary.BigEndian.AppendUint32(nil, code), rest...)
}

func TestParseStartup(t *testing.T) {
	s, err := ParseStartup(packet(Version30, "user\x00ana\x00database\x00d\x00_pq_.x\x001\x00\x00"))
	if err != nil || s.Get("user") != "ana" || s.Get("database") != "d" || s.Get("none") != "" {
		t.Fatalf("%+v, %v", s, err)
	}
	if v, unknown, tell := s.Speaks(); v != Version30 || !tell || !slices.Equal(unknown, []string{"_pq_.x"}) {
		t.Fatalf("speaks %d %v %v", v, unknown, tell)
	}
	for asked, want := range map[uint32]uint32{Version30: Version30, Version32: Version32, 3<<16 | 9999: Version32} {
		s, err := ParseStartup(packet(asked, "user\x00a\x00\x00"))
		if err != nil {
			t.Fatal(err)
		}
		if v, _, tell := s.Speaks(); v != want || tell != (asked != want) {
			t.Errorf("asked %x: speaks %x, tell %v", asked, v, tell)
		}
	}
	for _, kind := range []struct {
		body []byte
		want Kind
	}{{packet(codeSSL, ""), KindSSL}, {packet(codeGSS, ""), KindGSS}, {packet(codeCancel, "\x00\x00\x00\x07key!"), KindCancel}} {
		if s, err := ParseStartup(kind.body); err != nil || s.Kind != kind.want {
			t.Errorf("%x: %+v, %v", kind.body, s, err)
		}
	}
	for _, bad := range [][]byte{nil, packet(Version30, ""), packet(Version30, "user"), packet(Version30, "user\x00a"),
		packet(Version30, "user\x00a\x00"), packet(Version30, "\x00x"), packet(codeCancel, "abcd")} {
		if _, err := ParseStartup(bad); !errors.Is(err, ErrProtocol) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	var e *Error
	if _, err := ParseStartup(packet(2<<16, "")); !errors.As(err, &e) || e.Code != "0A000" {
		t.Errorf("protocol 2: %v", err)
	}
}

func TestReadStartupReadsNoFurther(t *testing.T) {
	b := AppendStartup(nil, []Param{{"user", "a"}})
	r := bytes.NewReader(append(slices.Clone(b), "stuffed"...))
	if _, err := ReadStartup(r); err != nil || r.Len() != len("stuffed") {
		t.Fatalf("%v, %d bytes left", err, r.Len())
	}
	for _, bad := range [][]byte{{0, 0, 0, 7}, {0, 0, 0x27, 0x15}, {0xff, 0xff, 0xff, 0xff}, {0, 0}} {
		if _, err := ReadStartup(bytes.NewReader(bad)); err == nil {
			t.Errorf("%x accepted", bad)
		}
	}
}

func TestForServer(t *testing.T) {
	ro := Param{"default_transaction_read_only", "on"}
	for _, c := range []struct{ in, want []Param }{
		{[]Param{{"user", "a"}, {"_pq_.x", "1"}}, []Param{{"user", "a"}, ro}},
		{[]Param{{"client_min_messages", "ERROR"}}, []Param{{"client_min_messages", "warning"}, ro}},
		{[]Param{{"client_min_messages", "notice"}}, []Param{{"client_min_messages", "notice"}, ro}},
		{[]Param{{"options", `-c client_min_messages=error -c a=b\ c`}}, []Param{{"options", `-c client_min_messages=error -c a=b\ c -c client_min_messages=warning`}, ro}},
		{[]Param{{"options", `--client-min-messages=panic`}}, []Param{{"options", `--client-min-messages=panic -c client_min_messages=warning`}, ro}},
		{[]Param{{"options", `-cclient_min_messages=error -c client_min_messages=log`}}, []Param{{"options", `-cclient_min_messages=error -c client_min_messages=log`}, ro}},
		{[]Param{{"options", `-c default_transaction_read_only=off`}}, []Param{{"options", `-c default_transaction_read_only=off`}}},
	} {
		if got := ForServer(c.in, ro); !reflect.DeepEqual(got, c.want) {
			t.Errorf("ForServer(%v) = %v, want %v", c.in, got, c.want)
		}
	}
}

func TestErrorRoundTrip(t *testing.T) {
	e := &Error{Severity: "FATAL", Code: "57P03", Message: "m", Detail: "d", Hint: "h"}
	b := e.Append(nil)
	_, body, err := ReadMessage(bytes.NewReader(b), 1000)
	if err != nil {
		t.Fatal(err)
	}
	got := ParseError(body)
	if got.Code != e.Code || got.Message != "m" || got.Detail != "d" || got.Hint != "h" || got.Severity != "FATAL" {
		t.Fatalf("%+v", got)
	}
	if !bytes.Equal(got.Append(nil), b) {
		t.Fatal("a received error is not passed on byte for byte")
	}
}

func TestReader(t *testing.T) {
	in := slices.Concat(AppendParameterStatus(nil, "a", "b"), AppendMessage(nil, 'C', bytes.Repeat([]byte("z"), 9000)), []byte("rest"))
	r := NewReader(bytes.NewReader(in))
	_, body, err := r.Next(100)
	if n, v, ok := ParseParameterStatus(body); err != nil || !ok || n != "a" || v != "b" {
		t.Fatal(n, v, err)
	}
	if _, body, err := r.Next(10000); err != nil || len(body) != 9000 {
		t.Fatal(len(body), err)
	}
	if !bytes.HasPrefix([]byte("rest"), r.Rest()) {
		t.Fatalf("rest %q", r.Rest())
	}
	if _, _, err := NewReader(bytes.NewReader(AppendMessage(nil, 67, make([]byte, 50)))).Next(10); err == nil {
		t.Fatal("too long a message accepted")
	}
}

func FuzzParseStartup(f *testing.F) {
	f.Add(packet(Version30, "user\x00ana\x00\x00"))
	f.Add(packet(Version32, "user\x00a\x00_pq_.q\x00\x00\x00"))
	f.Add(packet(codeCancel, "\x00\x00\x00\x07key!"))
	f.Add(packet(codeSSL, ""))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ParseStartup(b)
		if err != nil || s.Kind != KindStartup {
			return
		}
		again, err := ReadStartup(bytes.NewReader(AppendStartup(nil, s.Params)))
		if err != nil || !slices.Equal(again.Params, s.Params) {
			t.Fatalf("%q: parsed %v, written and read %v, %v", b, s.Params, again.Params, err)
		}
		ForServer(s.Params)
	})
}

// What a start-up packet asks for, as PostgreSQL reads it.
func TestStartupMeans(t *testing.T) {
	for _, c := range []struct {
		values   []string
		physical bool
		bad      bool
	}{
		{nil, false, false}, {[]string{"tru"}, true, false}, {[]string{"ye"}, true, false}, {[]string{"ON"}, true, false},
		{[]string{"o"}, false, true}, {[]string{"1"}, true, false}, {[]string{"11"}, false, true}, {[]string{""}, false, true},
		{[]string{"database"}, false, false}, {[]string{"database", "true"}, false, false}, {[]string{"t", "off"}, false, false},
	} {
		var s Startup
		for _, v := range c.values {
			s.Params = append(s.Params, Param{"replication", v})
		}
		if got, err := s.Replication(); got != c.physical || (err != nil) != c.bad {
			t.Errorf("%q: %v, %v", c.values, got, err)
		}
	}
	long := strings.Repeat("n", 64)
	s := Startup{Params: []Param{{"user", long}}}
	if s.User() != long[:63] || s.Database() != long[:63] {
		t.Errorf("%q, %q", s.User(), s.Database())
	}
}
