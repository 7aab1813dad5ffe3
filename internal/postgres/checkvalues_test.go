package postgres

import "testing"

func TestCheckValues(t *testing.T) {
	bin, err := FindBinDir()
	if err != nil {
		t.Fatal(err)
	}
	refused, err := CheckValues(t.Context(), bin, map[string]string{
		"work_mem": "8MB", "Shared_Buffers": "much", "max_connections": "0", "no_such_thing": "1", "my.own": "x", "log_min_duration_statement": "1s"})
	if err != nil {
		t.Fatal(err)
	}
	if len(refused) != 3 || refused["Shared_Buffers"] == "" || refused["max_connections"] == "" || refused["no_such_thing"] == "" {
		t.Fatalf("refused %q", refused)
	}
	if refused, err = CheckValues(t.Context(), bin, map[string]string{"work_mem": "8MB"}); err != nil || len(refused) > 0 {
		t.Fatalf("%q %v", refused, err)
	}
}
