package session

import (
	"fmt"
	"testing"
	"time"

	"manada/internal/proxy/console"
)

func TestAverage(t *testing.T) {
	a := console.Counts{Transactions: 100, Queries: 200, Received: 1000, TransactionTime: 5000, QueryTime: 4000, Wait: 100, Assignments: 10}
	b := console.Counts{Transactions: 220, Queries: 500, Received: 7000, TransactionTime: 5000 + 120*30, QueryTime: 4000 + 300*20, Wait: 100 + 60*7, Assignments: 70}
	want := console.Counts{Transactions: 2, Queries: 5, Received: 100, TransactionTime: 30, QueryTime: 20, Wait: 7, Assignments: 1}
	if got := average(a, b, time.Minute); got != want {
		t.Errorf("%+v", got)
	}
	if got := average(b, b, time.Minute); got != (console.Counts{}) {
		t.Errorf("%+v", got)
	}
}

// Databases that are too many are one.
func TestLabels(t *testing.T) {
	var l tallies
	for i := range maxLabels + 50 {
		want := i + 1
		if i >= maxLabels {
			want = 0
		}
		if got := l.label(fmt.Sprint("db", i)); got != want {
			t.Fatalf("database %d: label %d", i, got)
		}
	}
	if l.label("db7") != 8 || l.name("db7") != "db7" || l.name("db149") != others {
		t.Error("a database has changed its label")
	}
	var n named
	for i := range 3 * maxNamed {
		n.add(fmt.Sprint("reason", i), 1)
	}
	if all := n.all(); len(all) != maxNamed+1 || all[others] != 2*maxNamed {
		t.Errorf("%d names, %d others", len(all), all[others])
	}
}
