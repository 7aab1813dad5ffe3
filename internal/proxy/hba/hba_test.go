package hba

import (
	"strings"
	"testing"
)

func TestRefuses(t *testing.T) {
	lines := []string{
		"local all all trust",
		`host all mallory all reject # not him`,
		"hostssl app,\"all\" alice, bob 10.1.0.0/16 scram-sha-256",
		"hostnossl app carol 10.2.0.0 255.255.0.0 md5",
		"host sameuser all 10.3.0.7/32 md5",
		"host replication walker 0.0.0.0/0 scram-sha-256",
		"host all six fd00::/8 scram-sha-256",
		"host all all 10.0.0.0/8 reject",
	}
	rules, err := WithOwn(lines, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		client Client
		want   string
	}{
		{Client{Addr: "10.1.2.3:99", TLS: true, User: "alice", Database: "app"}, ""},
		{Client{Addr: "10.1.2.3:99", TLS: true, User: "bob", Database: "all"}, ""},
		{Client{Addr: "[::ffff:10.1.2.3]:99", TLS: true, User: "bob", Database: "app"}, ""},
		{Client{Addr: "10.1.2.3:99", User: "alice", Database: "app"},
			`pg_hba.conf rejects connection for host "10.1.2.3", user "alice", database "app", no encryption`},
		{Client{Addr: "10.1.2.3:99", TLS: true, User: "alice", Database: "other"},
			`pg_hba.conf rejects connection for host "10.1.2.3", user "alice", database "other", SSL encryption`},
		{Client{Addr: "10.2.9.9:1", User: "carol", Database: "app"}, ""},
		{Client{Addr: "10.2.9.9:1", User: "carol", Database: "app", TLS: true}, "rejects"},
		{Client{Addr: "10.3.0.7:1", User: "dave", Database: "dave"}, ""},
		{Client{Addr: "10.3.0.7:1", User: "dave", Database: "eve"}, "rejects"},
		{Client{Addr: "192.0.2.1:1", TLS: true, User: "mallory", Database: "app"}, "rejects"},
		{Client{Addr: "192.0.2.1:1", TLS: true, User: "anybody", Database: "app"}, ""},
		{Client{Addr: "127.0.0.1:1", User: "anybody", Database: "app"}, ""},
		{Client{Addr: "192.0.2.1:1", User: "anybody", Database: "app"},
			`no pg_hba.conf entry for host "192.0.2.1", user "anybody", database "app", no encryption`},
		{Client{Addr: "10.9.9.9:1", User: "walker", Replication: true}, ""},
		{Client{Addr: "10.9.9.9:1", User: "other", Replication: true},
			`no pg_hba.conf entry for replication connection from host "10.9.9.9", user "other", no encryption`},
		{Client{Addr: "[fd00::1]:1", User: "six", Database: "x"}, ""},
		{Client{Addr: "10.1.2.3:9", TLS: true, User: "manada_proxy", Database: "postgres"}, ""},
		{Client{Addr: "10.1.2.3:9", User: "manada_proxy", Database: "postgres"}, "rejects"},
	} {
		got := rules.Refuses(c.client)
		if c.want == "" != (got == "") || !strings.Contains(got, c.want) {
			t.Errorf("%+v: %q, want %q", c.client, got, c.want)
		}
	}
	if none, err := WithOwn(nil, nil); err != nil || none.Refuses(Client{Addr: "192.0.2.1:1"}) != "" {
		t.Error("without lines the proxy admits as it always did")
	}
}

func TestParseObjects(t *testing.T) {
	for line, want := range map[string]string{
		"host all +admins 10.0.0.0/8 md5":                          "+admins: groups are not supported by the proxy",
		"host samerole all 10.0.0.0/8 md5":                         "samerole is not supported by the proxy",
		"host @dbs all 10.0.0.0/8 md5":                             "@dbs: files are not supported",
		"host all /^a 10.0.0.0/8 md5":                              "regular expressions",
		"host all all db.example.com md5":                          "host names are not supported",
		"host all all 10.0.0.0/33 md5":                             "is no address",
		"host all all 10.0.0.0 255.0.255.0 md5":                    "not together",
		"host all all 10.0.0.0 md5":                                "is no mask",
		"host all all 10.0.0.0/8 trust":                            "trust would let anyone in",
		"hostssl all all 10.0.0.0/8 cert":                          "method cert is not supported by the proxy",
		"hostssl all all all scram-sha-256 clientcert=verify-full": "option clientcert=verify-full",
		"host all all":                                             "too few fields",
		"hosts all all all md5":                                    "is no connection type",
		`host "all all all md5`:                                    "not closed",
	} {
		if _, err := Parse([]string{"local all all peer", line}); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "line 2") {
			t.Errorf("%s: %v, want %q", line, err, want)
		}
	}
	for _, line := range []string{"host all all samehost md5", "host all all samenet md5", "hostgssenc all all all gss", "hostnogssenc all all all reject"} {
		if _, err := Parse([]string{line}); err != nil {
			t.Errorf("%s: %v", line, err)
		}
	}
}

func TestSameHost(t *testing.T) {
	rules, err := Parse([]string{"host all all samehost md5"})
	if err != nil {
		t.Fatal(err)
	}
	if why := rules.Refuses(Client{Addr: "127.0.0.1:1", User: "u", Database: "d"}); why != "" {
		t.Error(why)
	}
	if rules.Refuses(Client{Addr: "192.0.2.9:1", User: "u", Database: "d"}) == "" {
		t.Error("a stranger is not this host")
	}
}
