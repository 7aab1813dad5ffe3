package intruder

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
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
	s.settled()
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

// exposed: a removed host knew what people chose, the join secret and the
// superuser's password. Both are told until they are changed.
func (s *site) exposed() {
	secret := filepath.Join(s.Data, "join.secret")
	choose := func(text string) { must(s, os.WriteFile(secret, []byte(text+"\n"), 0o644)) }
	choose("a join secret that people chose, 17 words long or so")
	for _, host := range all[:3] {
		defer s.set(host, "agent", func(text string) string {
			if strings.Contains(text, "token_file: join.token") { // it has joined with that
				return strings.Replace(text, "token_file: join.token", "secret_file: "+secret, 1)
			}
			return fmt.Sprintf("%s\njoin:\n  addresses: [%q]\n  secret_file: %s\n", text, s.at("master", peerPort), secret)
		})()
	}
	s.wantOK("with a join secret")
	s.choosePassword("that-people-chose")
	out, err := s.Manada(s.ctx, "node", "token", "--node", "z9")
	must(s, err)
	_, err = s.join("z9", pki.KindProxy, strings.Fields(out)[0])
	must(s, err)
	if out, err := s.Manada(s.ctx, "node", "remove", "z9", "--yes"); err != nil {
		s.Fatalf("manada node remove z9: %v\n%s", err, out)
	}
	for code, says := range map[string][2]string{
		"M-H07": {"still has the join secret that a removed host knows", "put a new secret into join.secret_file"},
		"M-H09": {"z9, removed from the herd, knew the password of postgres", "manada secrets set superuser"},
	} {
		s.eventually("condition "+code, func() string {
			text, hint := s.condition(code)
			if !strings.Contains(text, says[0]) || !strings.Contains(hint, says[1]) {
				return fmt.Sprintf("the condition %q %q", text, hint)
			}
			return ""
		})
	}
	known, err := os.ReadFile(secret)
	must(s, err)
	if _, err := s.join("z8", pki.KindProxy, strings.TrimSpace(string(known))); err == nil || !strings.Contains(err.Error(), "removed from the herd knows this join secret") {
		s.Errorf("joining with the secret that the removed host knows: %v", err)
	}
	choose("another secret of people, which nobody has told to z9")
	s.choosePassword("that-people-chose-anew")
	for _, code := range []string{"M-H07", "M-H09"} {
		s.eventually("end of condition "+code, func() string {
			text, _ := s.condition(code)
			return text
		})
	}
}

// choosePassword changes the superuser's password by hand, and tells the herd.
func (s *site) choosePassword(password string) {
	s.Helper()
	s.rotated()
	must(s, s.Relearn())
	_, err := s.Value(s.ctx, s.DSN(), "alter role postgres password '"+password+"'")
	must(s, err)
	cmd := exec.CommandContext(s.ctx, bin, "secrets", "set", "superuser", "--dir", s.Dir)
	cmd.Stdin = strings.NewReader(password + "\n")
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		s.Fatalf("manada secrets set superuser: %v\n%s", err, &said)
	}
	s.eventually("the new password", func() string {
		if err := s.Relearn(); err != nil {
			return err.Error()
		}
		if s.Password() != password {
			return "it is the old one"
		}
		return ""
	})
}
