package store

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestChooseVoters(t *testing.T) {
	h := func(specs ...string) (out []Host) { // name:kind[:location]
		for _, s := range specs {
			p := append(strings.Split(s, ":"), "")
			out = append(out, Host{Name: p[0], Kind: p[1], Location: p[2]})
		}
		return out
	}
	seed := h("master:data", "slave:data", "backup:witness")
	for name, tc := range map[string]struct {
		hosts   []Host
		current []string
		want    int
		voters  string
	}{
		"none":                     {nil, nil, 3, ""},
		"the first host":           {h("master:data"), nil, 3, "master"},
		"two hosts, one vote":      {h("master:data", "slave:data"), []string{"master"}, 3, "master"},
		"the seed's three":         {seed, []string{"master"}, 3, "master slave backup"},
		"data before witness":      {h("w:witness", "a:data", "b:data", "c:data"), nil, 3, "a b c"},
		"the present one stays":    {h("w:witness", "a:data", "b:data", "c:data"), []string{"w"}, 3, "w a b"},
		"one per location":         {h("a:data:x", "b:data:x", "c:data:y", "d:witness:z"), nil, 3, "a c d"},
		"locations are no must":    {h("a:data:x", "b:data:x", "c:data:x"), nil, 3, "a b c"},
		"a proxy never votes":      {h("a:data", "p:proxy", "q:proxy"), nil, 3, "a"},
		"a vote moves":             {h("master:data", "backup:witness", "new:data"), []string{"master", "slave", "backup"}, 3, "master backup new"},
		"four hosts, three votes":  {h("a:data", "b:data", "c:data", "d:data"), nil, 4, "a b c"},
		"five":                     {h("a:data", "b:data", "c:data", "d:data", "e:witness"), nil, 5, "a b c d e"},
		"four of five wanted":      {h("a:data", "b:data", "c:data", "d:data"), nil, 5, "a b c"},
		"a single one is wanted":   {seed, []string{"slave"}, 1, "slave"},
		"never none":               {seed, nil, 2, "master"},
		"a gone host's vote drops": {h("a:data", "b:data"), []string{"a", "b", "c"}, 3, "a"},
	} {
		if got := strings.Join(ChooseVoters(tc.hosts, tc.current, tc.want), " "); got != tc.voters {
			t.Errorf("%s: got %q, want %q", name, got, tc.voters)
		}
	}
}

func TestChooseVotersIsStableAndOdd(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var hosts []Host
		for i := range rapid.IntRange(0, 9).Draw(t, "hosts") {
			hosts = append(hosts, Host{
				Name:     string(rune('a' + i)),
				Kind:     rapid.SampledFrom([]string{"data", "witness", "proxy"}).Draw(t, "kind"),
				Location: rapid.SampledFrom([]string{"", "x", "y"}).Draw(t, "location"),
			})
		}
		want := rapid.IntRange(0, 7).Draw(t, "want")
		first := ChooseVoters(hosts, nil, want)
		if n := len(first); n > want || n != 0 && n != 1 && n != 3 && n != 5 {
			t.Fatalf("%d voters, %d wanted", n, want)
		}
		again := ChooseVoters(hosts, first, want)
		slices.Sort(first)
		slices.Sort(again)
		if !slices.Equal(first, again) {
			t.Fatalf("%v becomes %v without any change", first, again)
		}
	})
}
