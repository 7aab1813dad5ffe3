package intruder

import (
	"path/filepath"
	"strings"

	"manada/internal/pki"
)

// tokens: a token that the command narrows opens the herd for the host that it
// names, of its kind, once.
func (s *site) tokens() {
	out, err := s.Manada(s.ctx, "node", "token", "--node", "y9", "--kind", "proxy")
	must(s, err)
	token := strings.Fields(out)[0]
	join := func(node, kind string) error {
		_, err := s.join(node, kind, token)
		return err
	}
	for _, who := range [][2]string{{"y8", pki.KindProxy}, {"y9", pki.KindData}, {"y9", pki.KindWitness}} {
		if err := join(who[0], who[1]); err == nil {
			s.Errorf("%s joined as %s with a token for the proxy y9", who[0], who[1])
		}
	}
	if err := join("y9", pki.KindProxy); err != nil {
		s.Fatalf("the host that it is for: %v", err)
	}
	if err := join("y9", pki.KindProxy); err == nil {
		s.Error("a token served twice")
	}
	if out, err := s.Manada(s.ctx, "node", "token", "--kind", "anything"); err == nil || !strings.Contains(out, "want database, witness or proxy") {
		s.Errorf("a kind that there is not: %v\n%s", err, out)
	}
	if out, err := s.Manada(s.ctx, "node", "remove", "y9", "--yes"); err != nil {
		s.Errorf("manada node remove y9: %v\n%s", err, out)
	}
	s.wantOK("after the tokens")
}

// join makes the identity of a host with a token or a shared secret.
func (s *site) join(node, kind, secret string) (dir string, err error) {
	s.Helper()
	dir = filepath.Join(s.TempDir(), node)
	_, err = pki.Join(s.ctx, []string{s.at("backup", peerPort)}, pki.JoinOptions{
		Dir: dir, Node: node, Kind: kind, Hosts: []string{"127.0.0.1"}, Secret: secret,
	})
	return dir, err
}
