package conv

import "testing"

func TestTimely(t *testing.T) {
	for text, want := range map[string]bool{
		"select 'now'::timestamptz":                  true,
		"select timestamp 'Today 12:00'":             true,
		"select $$TOMORROW$$::date":                  true,
		"select date '  yesterday'":                  true,
		"select 'now'":                               true,
		"select now(), 'a'":                          false,
		"select 'known', 'today_', 'todays', 'snow'": false,
		"select now from t":                          false, // a column
		"select 1":                                   false,
		"":                                           false,
		"select count(*) from t where s = 'n' or 't'": false,
	} {
		if got := timely(text); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}
