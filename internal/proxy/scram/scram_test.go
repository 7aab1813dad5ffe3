package scram

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
)

// The exchange of RFC 7677, section 3.
const (
	rfcClientNonce = "rOprNGfwEbeRWgbNEkqO"
	rfcServerNonce = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
	rfcSalt        = "W22ZaJ0SNY7soEsUEjb6gQ=="
	rfcFirst       = "n,,n=user,r=" + rfcClientNonce
	rfcServerFirst = "r=" + rfcClientNonce + rfcServerNonce + ",s=" + rfcSalt + ",i=4096"
	rfcFinal       = "c=biws,r=" + rfcClientNonce + rfcServerNonce + ",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
	rfcServerFinal = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
)

func rfcKeys(t *testing.T) Keys {
	t.Helper()
	salt, err := base64.StdEncoding.DecodeString(rfcSalt)
	if err != nil {
		t.Fatal(err)
	}
	k, err := FromPassword("pencil", salt, 4096)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestServerRFC7677(t *testing.T) {
	k := rfcKeys(t)
	s := NewServer(k.Verifier, true)
	s.nonce = rfcServerNonce
	first, err := s.First([]byte(rfcFirst))
	if err != nil || string(first) != rfcServerFirst {
		t.Fatalf("first = %q, %v", first, err)
	}
	final, got, err := s.Final([]byte(rfcFinal))
	if err != nil || string(final) != rfcServerFinal {
		t.Fatalf("final = %q, %v", final, err)
	}
	if got.Client != k.Client {
		t.Fatal("recovered ClientKey differs from the password's")
	}
}

func TestClientRFC7677(t *testing.T) {
	for name, c := range map[string]*Client{
		"password": NewPasswordClient("pencil"),
		"keys":     NewKeyClient(rfcKeys(t)),
	} {
		c.nonce = rfcClientNonce
		c.bare = "n=user,r=" + rfcClientNonce
		final, err := c.Final([]byte(rfcServerFirst))
		if err != nil || string(final) != rfcFinal {
			t.Fatalf("%s: final = %q, %v", name, final, err)
		}
		if err := c.Check([]byte(rfcServerFinal)); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := c.Check([]byte(strings.Replace(rfcServerFinal, "6r", "7r", 1))); !errors.Is(err, ErrServer) {
			t.Fatalf("%s: a false signature: %v", name, err)
		}
	}
}

// The keys recovered from a client log in at a second server with the same
// verifier, and nowhere else.
func TestPassThrough(t *testing.T) {
	k := rfcKeys(t)
	run := func(c *Client, v Verifier, known bool) (Keys, error) {
		s := NewServer(v, known)
		sf, err := s.First(c.First())
		if err != nil {
			return Keys{}, err
		}
		cf, err := c.Final(sf)
		if err != nil {
			return Keys{}, err
		}
		last, keys, err := s.Final(cf)
		if err != nil {
			return Keys{}, err
		}
		return keys, c.Check(last)
	}
	got, err := run(NewPasswordClient("pencil"), k.Verifier, true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := run(NewKeyClient(got), k.Verifier, true); err != nil {
		t.Fatalf("log in with recovered keys: %v", err)
	}
	other, err := FromPassword("pencil", []byte("another salt"), 4096)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := run(NewKeyClient(got), other.Verifier, true); !errors.Is(err, ErrStale) {
		t.Fatalf("another salt: %v", err)
	}
	if _, err := run(NewPasswordClient("pencil2"), k.Verifier, true); !errors.Is(err, ErrProof) {
		t.Fatalf("wrong password: %v", err)
	}
	if _, err := run(NewPasswordClient("pencil"), k.Verifier, false); !errors.Is(err, ErrProof) {
		t.Fatalf("mock exchange: %v", err)
	}
}

func TestServerRefuses(t *testing.T) {
	v := rfcKeys(t).Verifier
	for _, first := range []string{"", "n", "n,,", "n,,n=u", "n,,n=u,r=", "x,,n=u,r=abc", "n,a=z,n=u,r=abc", "n,,m=1,n=u,r=abc", "n,,n=u,r=a b"} {
		if _, err := NewServer(v, true).First([]byte(first)); err == nil {
			t.Errorf("First(%q) accepted", first)
		}
	}
	if _, err := NewServer(v, true).First([]byte("p=tls-server-end-point,,n=,r=abc")); !errors.Is(err, ErrChannelBinding) {
		t.Errorf("channel binding: %v", err)
	}
	for _, final := range []string{
		"", "p=", strings.Replace(rfcFinal, "biws", "eSws", 1), strings.Replace(rfcFinal, "rOpr", "rOps", 1),
		strings.Replace(rfcFinal, "p=d", "p=!", 1),
	} {
		s := NewServer(v, true)
		s.nonce = rfcServerNonce
		if _, err := s.First([]byte(rfcFirst)); err != nil {
			t.Fatal(err)
		}
		if _, _, err := s.Final([]byte(final)); err == nil {
			t.Errorf("Final(%q) accepted", final)
		}
	}
}

func TestVerifier(t *testing.T) {
	v := rfcKeys(t).Verifier
	got, err := ParseVerifier(v.String())
	if err != nil || got.String() != v.String() {
		t.Fatalf("%v, %v", got, err)
	}
	if _, err := ParseVerifier("md5" + strings.Repeat("a", 32)); !errors.Is(err, ErrMD5) {
		t.Fatalf("md5: %v", err)
	}
	for _, s := range []string{"", "SCRAM-SHA-256$", "SCRAM-SHA-256$0:AA==$AA==:AA==", "SCRAM-SHA-256$4096:$AA==:AA==", "plain"} {
		if _, err := ParseVerifier(s); err == nil {
			t.Errorf("ParseVerifier(%q) accepted", s)
		}
	}
	a, b := Mock([]byte("s"), "u", 0), Mock([]byte("s"), "w", 0)
	if string(a.Salt) == string(b.Salt) || string(a.Salt) != string(Mock([]byte("s"), "u", 0).Salt) || a.Iterations != 4096 || Mock(nil, "u", 10000).Iterations != 10000 {
		t.Fatal("mock verifiers must be stable per user and differ between users")
	}
}

func FuzzServer(f *testing.F) {
	f.Add([]byte(rfcFirst), []byte(rfcFinal))
	f.Fuzz(func(t *testing.T, first, final []byte) {
		s := NewServer(Mock([]byte("x"), "u", 0), false)
		if _, err := s.First(first); err != nil {
			return
		}
		if _, _, err := s.Final(final); err == nil {
			t.Fatal("a mock exchange succeeded")
		}
	})
}

// TestServerChecksWhatIsSigned (RFC 5802, 7): a client that knows the password
// and signs another nonce or another channel binding than it was given is
// refused all the same.
func TestServerChecksWhatIsSigned(t *testing.T) {
	k := rfcKeys(t)
	for bare, good := range map[string]bool{
		"c=biws,r=" + rfcClientNonce + rfcServerNonce: true,
		"c=biws,r=" + rfcClientNonce + "another":      false,
		"c=biws,r=" + rfcClientNonce:                  false,
		"c=eSws,r=" + rfcClientNonce + rfcServerNonce: false, // "y,,", and the first message said "n,,"
	} {
		s := NewServer(k.Verifier, true)
		s.nonce = rfcServerNonce
		first, err := s.First([]byte(rfcFirst))
		if err != nil {
			t.Fatal(err)
		}
		proof := xor(k.Client, mac(k.Verifier.StoredKey[:], strings.TrimPrefix(rfcFirst, "n,,")+","+string(first)+","+bare))
		_, _, err = s.Final([]byte(bare + ",p=" + base64.StdEncoding.EncodeToString(proof[:])))
		if (err == nil) != good {
			t.Errorf("%s: %v", bare, err)
		}
	}
}

// TestClientWantsTheServersNonce: one that adds nothing to ours could replay.
func TestClientWantsTheServersNonce(t *testing.T) {
	for nonce, good := range map[string]bool{rfcClientNonce + "x": true, rfcClientNonce: false, "x" + rfcClientNonce: false} {
		c := NewKeyClient(rfcKeys(t))
		c.nonce, c.bare = rfcClientNonce, "n=user,r="+rfcClientNonce
		if _, err := c.Final([]byte("r=" + nonce + ",s=" + rfcSalt + ",i=4096")); (err == nil) != good {
			t.Errorf("r=%s: %v", nonce, err)
		}
	}
}

// What is computed without crypto/hmac is the same.
func TestMac(t *testing.T) {
	text := strings.Repeat("client=proof,", 60)
	for _, key := range []int{0, 1, 32, 63, 64, 65, 300} {
		for _, n := range []int{0, 1, 55, 64, 200, 447, 448, 449, len(text)} {
			h := hmac.New(sha256.New, []byte(text[:key]))
			h.Write([]byte(text[:n]))
			if got := mac([]byte(text[:key]), text[:n]); !bytes.Equal(got[:], h.Sum(nil)) {
				t.Errorf("a key of %d bytes, a text of %d: %x", key, n, got)
			}
		}
	}
}

// A key has 32 bytes.
func TestDecodeKey(t *testing.T) {
	for n := range 40 {
		want := bytes.Repeat([]byte{7}, n)
		var k Key
		if ok := decodeKey(&k, base64.StdEncoding.EncodeToString(want)); ok != (n == len(k)) || ok && !bytes.Equal(k[:], want) {
			t.Errorf("%d bytes: %v, %x", n, ok, k)
		}
	}
	if decodeKey(new(Key), strings.Repeat("!", 44)) {
		t.Error("what is not base64 is taken")
	}
}
