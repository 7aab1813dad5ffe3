package agent

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"manada/internal/cluster"
	"manada/internal/decide"
	"manada/internal/peer"
	"manada/internal/store"
)

// What the history says of an epoch that begins is for people.
func TestOpenedText(t *testing.T) {
	two := twoEpochs()
	for _, c := range []struct {
		change func(*cluster.Term)
		took   time.Duration
		want   string
	}{
		{func(*cluster.Term) {}, 910 * time.Millisecond, "master leads epoch 2; commits wait for 1 of slave; 0.9 s after the first sign of it"},
		{func(x *cluster.Term) { x.K, x.Sync = 0, nil }, 0, "master leads epoch 2; commits are on it alone until a standby is there"},
		{func(x *cluster.Term) { x.K, x.Sync, x.Durability = 0, nil, cluster.Strict }, 0, "master leads epoch 2; commits wait until a standby is there"},
	} {
		x := two.Clone()
		c.change(x)
		if got := openedText(x, c.took); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

// Why a node takes over: the order, else what it suspected first.
func TestCauseOfATakeover(t *testing.T) {
	a := newTestAgent(t)
	a.remember(decide.Decision{Suspects: "slave", Cause: "slave is silent"})
	a.remember(decide.Decision{Suspects: "slave"}) // frozen, promised
	v := &decide.View{Store: decide.Store{Term: twoEpochs()}}
	if got := a.causeOf(v); got != "slave is silent" {
		t.Errorf("cause %q", got)
	}
	v.Store.Request = &decide.Request{Kind: "switchover", To: "master", By: "root"}
	if got := a.causeOf(v); got != "ordered by root" {
		t.Errorf("cause %q", got)
	}
	v.Store.Request.To = "third"
	if got := a.causeOf(v); got != "slave is silent" {
		t.Errorf("another's order: cause %q", got)
	}
	if took := a.tookOver(twoEpochs()); took <= 0 {
		t.Errorf("took %s", took)
	}
	if got := a.causeOf(&decide.View{}); got != "" {
		t.Errorf("after the epoch opened: cause %q", got)
	}
}

// One sentence, not a chain; and whether a change may have been made is told by
// the code.
func TestStoreThatDoesNotAnswer(t *testing.T) {
	a := newTestAgent(t)
	chain := fmt.Errorf("create request: asked 3 members: context deadline exceeded: last: https://10.0.0.1:2379: dial tcp: i/o timeout: %w: %w", store.ErrUnreachable, store.ErrUnknown)
	lost := fmt.Errorf("create request: asked 3 members: no answer: %w", store.ErrUnknown)
	for _, c := range []struct {
		name string
		err  error
		code string
		says string
	}{
		{"a read", a.storeDown(lost), peer.CodeUnavailable, "the store does not answer master: no majority of its voters answers"},
		{"a change", a.storeDoubt(lost), peer.CodeUnknown, "the store did not answer master whether it took the request"},
		{"a change that never left", a.storeDoubt(fmt.Errorf("x: %w", store.ErrUnreachable)), peer.CodeUnavailable, "none of its voters can be reached"},
		{"a chain", a.storeDown(chain), peer.CodeUnavailable, "the store does not answer master: none of its voters can be reached"},
	} {
		var p *peer.Error
		if !errors.As(c.err, &p) || p.Code != c.code || !strings.Contains(p.Message, c.says) || p.Hint == "" || strings.Contains(p.Message, "asked 3") {
			t.Errorf("%s: %+v", c.name, p)
		}
	}
}

// A failure that PostgreSQL says three times is told once.
func TestBriefSaysItOnce(t *testing.T) {
	if got := brief(errors.New("start: FATAL: x\nis wrong; FATAL: x is wrong; FATAL: x is wrong; gave up")); got != "start: FATAL: x is wrong; FATAL: x is wrong; gave up" {
		t.Errorf("%q", got)
	}
}
