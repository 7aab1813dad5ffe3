package conversation

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Wrong compares the letters that came with those that the file has.
func (c *Conversation) Wrong(t *Transcript) string {
	want := make([]string, len(t.Letters))
	for _, s := range c.Steps {
		if s.Kind == Letters {
			want[s.Client] = strings.ReplaceAll(s.Text, " ", "")
		}
	}
	for i, got := range t.Letters {
		if short(got) != want[i] {
			return fmt.Sprintf("client %d got %s, %s says %s", i+1, short(got), c.File, want[i])
		}
	}
	return ""
}

// short writes a letter that comes many times once with a star.
func short(letters string) string {
	var b strings.Builder
	for i := 0; i < len(letters); {
		n := 1
		for i+n < len(letters) && letters[i+n] == letters[i] {
			n++
		}
		if b.WriteByte(letters[i]); n > 5 {
			b.WriteByte('*')
		} else {
			b.WriteString(letters[i+1 : i+n])
		}
		i += n
	}
	return b.String()
}

// Rewrite puts the letters that came into the files in folder dir: of each
// conversation behind its last line.
func Rewrite(dir string, all []*Conversation, came map[*Conversation]*Transcript) error {
	byFile := map[string][]*Conversation{}
	for _, c := range all {
		byFile[c.File] = append(byFile[c.File], c)
	}
	for file, cs := range byFile {
		path := filepath.Join(dir, file)
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(rewritten(string(b), cs, came)), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func rewritten(text string, cs []*Conversation, came map[*Conversation]*Transcript) string {
	var out []string
	at := -1
	finish := func() {
		for len(out) > 0 && strings.TrimSpace(out[len(out)-1]) == "" {
			out = out[:len(out)-1]
		}
		if at >= 0 && came[cs[at]] != nil {
			for i, l := range came[cs[at]].Letters {
				name := ""
				if i > 0 {
					name = fmt.Sprintf("%d> ", i+1)
				}
				out = append(out, name+"= "+strings.Join(strings.Split(short(l), ""), " "))
			}
		}
		out = append(out, "")
	}
	for _, l := range strings.Split(text, "\n") {
		if strings.HasPrefix(l, "== ") {
			finish()
			at++
		}
		bare := prefix.ReplaceAllString(l, "")
		told := strings.HasPrefix(bare, "= ") || bare == "="
		if !told || came[cs[at]] == nil { // one that was not played keeps its own
			out = append(out, l)
		}
	}
	finish()
	return strings.Join(out, "\n")
}
