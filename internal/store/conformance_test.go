package store_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"manada/internal/cluster"
	"manada/internal/store"
	"manada/internal/store/storetest"
	"manada/internal/store/voter"
)

// open makes a client of the same store for a cluster name.
type open func(clusterName string) store.Store

// TestConformance holds both backends to the same behaviour.
func TestConformance(t *testing.T) {
	backends := map[string]func(*testing.T) open{"memory": openMemory, "etcd": openEtcd}
	for name, start := range backends {
		t.Run(name, func(t *testing.T) {
			o := start(t)
			for what, f := range map[string]func(*testing.T, open){
				"record": testRecord, "touch": testTouch, "late": testLateSwap, "invalid": testInvalid,
				"two systems": testTwoSystems, "race": testSwapRace, "renew": testRenew, "watch": testWatch,
				"requests": testRequests, "pause": testPause, "events": testEvents, "nodes": testNodes,
				"config": testConfig, "tokens": testTokens, "secret": testSecret, "status": testStatus,
				"own copy": testOwnCopy, "cancelled": testCancelled,
			} {
				t.Run(what, func(t *testing.T) { f(t, o) })
			}
		})
	}
}

func openMemory(t *testing.T) open {
	m := store.NewMemory()
	return func(c string) store.Store {
		s := m.Client("tester", c, time.Second, 100*time.Millisecond)
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
}

func openEtcd(t *testing.T) open {
	h := storetest.NewHerd(t, "one")
	cfg := h.Config(t, "one")
	cfg.Found = true
	v, err := voter.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	})
	return func(c string) store.Store {
		s, err := store.Open(t.Context(), store.Config{
			Cluster: c, Endpoints: []string{h.Hosts["one"].Client}, TLS: h.Certs.TLS, Reread: 100 * time.Millisecond,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
}

func term(epoch uint64) *cluster.Term {
	return &cluster.Term{
		SystemID: "7400000000000000001", Epoch: epoch, Leader: "master", Open: true,
		Sync: []cluster.Member{{Name: "slave", Instance: "i2"}}, K: 1, WantK: 1, Durability: cluster.Quorum,
		Promises: []cluster.Promise{{Node: "slave", Instance: "i2", Epoch: epoch - 1, WALEpoch: 1, LSN: 0x16B3740}},
		History:  []cluster.Branch{{Epoch: epoch, Leader: "master", Timeline: 1, Nonce: "n"}},
		Reason:   "test",
	}
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func wantErr(t *testing.T, err error, wants ...error) {
	t.Helper()
	for _, w := range wants {
		if !errors.Is(err, w) {
			t.Fatalf("got error %v, want %v", err, w)
		}
	}
}

func testRecord(t *testing.T, o open) {
	s, ctx := o("record"), t.Context()
	empty := must[store.Snapshot](t)(s.Read(ctx))
	if empty.Term != nil || empty.TermRev != 0 || empty.Lease != nil || empty.Pause != nil || len(empty.Requests) != 0 {
		t.Fatalf("an empty store reads as %+v", empty)
	}
	_, err := s.Swap(ctx, 5, term(2))
	wantErr(t, err, store.ErrConflict)
	before := time.Now()
	rev := must[int64](t)(s.Create(ctx, term(1)))
	_, err = s.Create(ctx, term(1))
	wantErr(t, err, store.ErrConflict)
	got := must[store.Snapshot](t)(s.Read(ctx))
	if d := cmp.Diff(term(1), got.Term); d != "" || got.TermRev != rev || got.StoreRev < rev {
		t.Fatalf("read %d of %d at %d, want %d; %s", got.TermRev, got.StoreRev, got.TermRev, rev, d)
	}
	if got.Sent.Before(before) || got.Received.Before(got.Sent) || got.Received.After(time.Now()) || got.StoreID == 0 {
		t.Fatalf("sent %v received %v id %x", got.Sent, got.Received, got.StoreID)
	}
	next := must[int64](t)(s.Swap(ctx, rev, term(2)))
	if next <= rev {
		t.Fatalf("revision went from %d to %d", rev, next)
	}
	_, err = s.Swap(ctx, rev, term(3))
	wantErr(t, err, store.ErrConflict)
	got = must[store.Snapshot](t)(s.Read(ctx))
	if got.Term.Epoch != 2 || got.TermRev != next {
		t.Fatalf("epoch %d revision %d, want 2 and %d", got.Term.Epoch, got.TermRev, next)
	}
	if other := must[store.Snapshot](t)(o("another").Read(ctx)); other.Term != nil {
		t.Fatal("another cluster on the same etcd sees our term")
	}
}

func testTouch(t *testing.T, o open) {
	s, ctx := o("touch"), t.Context()
	_, err := s.Touch(ctx, 1)
	wantErr(t, err, store.ErrConflict)
	rev := must[int64](t)(s.Create(ctx, term(4)))
	next := must[int64](t)(s.Touch(ctx, rev))
	got := must[store.Snapshot](t)(s.Read(ctx))
	if next <= rev || got.TermRev != next || cmp.Diff(term(4), got.Term) != "" {
		t.Fatalf("touched %d, got %d, reads %d %+v", rev, next, got.TermRev, got.Term)
	}
	_, err = s.Touch(ctx, rev)
	wantErr(t, err, store.ErrConflict)
}

// testLateSwap: finding H1's ABA. The content is the same again, the revision
// is not.
func testLateSwap(t *testing.T, o open) {
	s, ctx := o("late"), t.Context()
	rev := must[int64](t)(s.Create(ctx, term(1)))
	other := must[int64](t)(s.Swap(ctx, rev, term(2)))
	must[int64](t)(s.Swap(ctx, other, term(1)))
	_, err := s.Swap(ctx, rev, term(9))
	wantErr(t, err, store.ErrConflict)
}

func testInvalid(t *testing.T, o open) {
	s, ctx := o("invalid"), t.Context()
	k := term(1)
	k.K = 2
	for _, bad := range []*cluster.Term{nil, k, {K: 0}} {
		_, err := s.Create(ctx, bad)
		wantErr(t, err, store.ErrInvalid)
	}
	_, err := s.Swap(ctx, 0, term(1))
	wantErr(t, err, store.ErrInvalid)
	wantErr(t, s.CreateRequest(ctx, store.Request{ID: "../term"}), store.ErrInvalid)
	wantErr(t, s.PutNode(ctx, store.Node{Name: "Master/1"}), store.ErrInvalid)
}

func testTwoSystems(t *testing.T, o open) {
	s, ctx := o("systems"), t.Context()
	rev := must[int64](t)(s.Create(ctx, term(1)))
	foreign := term(2)
	foreign.SystemID = "other"
	_, err := s.Swap(ctx, rev, foreign)
	wantErr(t, err, store.ErrConflict, store.ErrOtherSystem)
	_, err = s.Create(ctx, foreign)
	wantErr(t, err, store.ErrConflict)
	if got := must[store.Snapshot](t)(s.Read(ctx)); got.TermRev != rev {
		t.Fatal("a foreign system changed the term")
	}
}

func testSwapRace(t *testing.T, o open) {
	ctx := t.Context()
	rev := must[int64](t)(o("race").Create(ctx, term(1)))
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		s := o("race")
		wg.Go(func() { _, errs[i] = s.Swap(ctx, rev, term(uint64(10+i))) })
	}
	wg.Wait()
	won := -1
	for i, err := range errs {
		switch {
		case err == nil && won >= 0:
			t.Fatalf("both %d and %d won", won, i)
		case err == nil:
			won = i
		default:
			wantErr(t, err, store.ErrConflict)
		}
	}
	got := must[store.Snapshot](t)(o("race").Read(ctx))
	if won < 0 || got.Term.Epoch != uint64(10+won) {
		t.Fatalf("winner %d, epoch %d", won, got.Term.Epoch)
	}
}

func testRenew(t *testing.T, o open) {
	old, next, ctx := o("renew"), o("renew"), t.Context()
	for seq := range uint64(3) {
		if err := old.Renew(ctx, store.Lease{Node: "master", Epoch: 1, Seq: seq}); err != nil {
			t.Fatal(err)
		}
	}
	if err := next.Renew(ctx, store.Lease{Node: "slave", Epoch: 2, Seq: 1}); err != nil {
		t.Fatal(err)
	}
	wantErr(t, old.Renew(ctx, store.Lease{Node: "master", Epoch: 1, Seq: 9}), store.ErrConflict)
	got := must[store.Snapshot](t)(old.Read(ctx))
	if d := cmp.Diff(&store.Lease{Node: "slave", Epoch: 2, Seq: 1}, got.Lease); d != "" {
		t.Fatal(d)
	}
}

func testWatch(t *testing.T, o open) {
	s, ctx := o("watch"), t.Context()
	wctx, stop := context.WithCancel(ctx)
	ch := s.Watch(wctx)
	if first := next(t, ch); first.Term != nil {
		t.Fatalf("first snapshot %+v", first)
	}
	writer := o("watch")
	rev := must[int64](t)(writer.Create(ctx, term(1)))
	awaitSnapshot(t, ch, func(s store.Snapshot) bool { return s.TermRev == rev })
	if err := writer.SetPause(ctx, &store.Pause{By: "me"}); err != nil {
		t.Fatal(err)
	}
	awaitSnapshot(t, ch, func(s store.Snapshot) bool { return s.Pause != nil })
	// Nobody reads for a while: only the newest is waiting, or one that was
	// taken just before it.
	for e := uint64(2); e < 12; e++ {
		rev = must[int64](t)(writer.Swap(ctx, rev, term(e)))
	}
	awaitSnapshot(t, ch, func(s store.Snapshot) bool { return s.TermRev == rev })
	stop()
	storetest.Eventually(t, "closed", func() error {
		if _, open := <-ch; open {
			return errors.New("still open")
		}
		return nil
	})
	other := s.Watch(ctx)
	next(t, other)
	_ = s.Close()
	storetest.Eventually(t, "closed with the store", func() error {
		if _, open := <-other; open {
			return errors.New("still open")
		}
		return nil
	})
}

func next(t *testing.T, ch <-chan store.Snapshot) store.Snapshot {
	t.Helper()
	select {
	case s, ok := <-ch:
		if !ok {
			t.Fatal("the watch ended")
		}
		return s
	case <-time.After(5 * time.Second):
		t.Fatal("no snapshot within 5 s")
	}
	panic("unreachable")
}

func awaitSnapshot(t *testing.T, ch <-chan store.Snapshot, good func(store.Snapshot) bool) store.Snapshot {
	t.Helper()
	for range 50 {
		if s := next(t, ch); good(s) {
			return s
		}
	}
	t.Fatal("50 snapshots, none of them the one awaited")
	panic("unreachable")
}

func testRequests(t *testing.T, o open) {
	s, ctx := o("requests"), t.Context()
	at := time.Date(2026, 11, 23, 1, 2, 3, 0, time.UTC)
	want := store.Request{ID: "r1", Kind: store.RequestSwitchover, To: "slave", By: "root", At: at, Options: map[string]string{"wait": "5s"}}
	if err := s.CreateRequest(ctx, want); err != nil {
		t.Fatal(err)
	}
	wantErr(t, s.CreateRequest(ctx, want), store.ErrExists)
	if err := s.CreateRequest(ctx, store.Request{ID: "r0", Kind: store.RequestReinit, At: at.Add(time.Second)}); err != nil {
		t.Fatal(err)
	}
	got := must[store.Snapshot](t)(s.Read(ctx)).Requests
	if len(got) != 2 || cmp.Diff(want, got[0]) != "" || got[1].ID != "r0" {
		t.Fatalf("requests %+v", got)
	}
	if err := s.MarkRequest(ctx, "r1", "tried"); err != nil {
		t.Fatal(err)
	}
	wantErr(t, s.MarkRequest(ctx, "r1", "tried"), store.ErrConflict)
	wantErr(t, s.MarkRequest(ctx, "none", "tried"), store.ErrNotFound)
	want.Options["tried"] = "true"
	if got = must[store.Snapshot](t)(s.Read(ctx)).Requests; cmp.Diff(want, got[0]) != "" {
		t.Fatalf("marked %+v", got)
	}
	res := store.Result{Code: 0, Text: "done", Node: "slave", At: at}
	if err := s.FinishRequest(ctx, "r1", res); err != nil {
		t.Fatal(err)
	}
	wantErr(t, s.FinishRequest(ctx, "r1", store.Result{Code: 1}), store.ErrConflict)
	wantErr(t, s.FinishRequest(ctx, "none", res), store.ErrNotFound)
	wantErr(t, s.MarkRequest(ctx, "r1", "late"), store.ErrConflict)
	got = must[store.Snapshot](t)(s.Read(ctx)).Requests
	if d := cmp.Diff(&res, got[0].Result); d != "" {
		t.Fatal(d)
	}
	for i := range 25 { // finished ones make room, open ones stay
		id := fmt.Sprintf("f%02d", i)
		if err := s.CreateRequest(ctx, store.Request{ID: id, At: at.Add(time.Minute + time.Duration(i)*time.Second)}); err != nil {
			t.Fatal(err)
		}
		if err := s.FinishRequest(ctx, id, res); err != nil {
			t.Fatal(err)
		}
	}
	got = must[store.Snapshot](t)(s.Read(ctx)).Requests
	if len(got) > 22 || got[0].ID != "r0" || got[len(got)-1].ID != "f24" {
		t.Fatalf("%d requests, first %s", len(got), got[0].ID)
	}
	if err := errors.Join(s.DeleteRequest(ctx, "r0"), s.DeleteRequest(ctx, "r0")); err != nil {
		t.Fatal(err)
	}
}

func testPause(t *testing.T, o open) {
	s, ctx := o("pause"), t.Context()
	want := &store.Pause{By: "me", Reason: "work", At: time.Now().UTC().Truncate(time.Second)}
	if err := s.SetPause(ctx, want); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, must[store.Snapshot](t)(s.Read(ctx)).Pause); d != "" {
		t.Fatal(d)
	}
	if err := errors.Join(s.SetPause(ctx, nil), s.SetPause(ctx, nil)); err != nil {
		t.Fatal(err)
	}
	if p := must[store.Snapshot](t)(s.Read(ctx)).Pause; p != nil {
		t.Fatalf("still paused: %+v", p)
	}
}

func testEvents(t *testing.T, o open) {
	ctx := t.Context()
	var wg sync.WaitGroup
	errs := make(chan error, 4)
	for i := range 4 {
		s := o("events")
		wg.Go(func() {
			for j := range 5 {
				_, err := s.AppendEvent(ctx, store.Event{
					Kind: "node_lost", Node: "slave", Epoch: 7, Text: fmt.Sprint(i, j),
					Details: map[string]string{"why": "test"}, At: time.Unix(1e9, 0),
				})
				if err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		t.Fatal(err)
	}
	s := o("events")
	all := must[[]store.Event](t)(s.Events(ctx, 0, 0))
	texts := map[string]bool{}
	for i, e := range all {
		texts[e.Text] = true
		if e.N != int64(i+1) || e.Kind != "node_lost" || e.Details["why"] != "test" || !e.At.Equal(time.Unix(1e9, 0)) {
			t.Fatalf("event %d is %+v", i+1, e)
		}
	}
	if len(all) != 20 || len(texts) != 20 {
		t.Fatalf("%d events, %d different", len(all), len(texts))
	}
	if tail := must[[]store.Event](t)(s.Events(ctx, 15, 3)); len(tail) != 3 || tail[0].N != 18 {
		t.Fatalf("the newest three after 15: %+v", tail)
	}
	if tail := must[[]store.Event](t)(s.Events(ctx, 19, 10)); len(tail) != 1 || tail[0].N != 20 {
		t.Fatalf("after 19: %+v", tail)
	}
}

func testNodes(t *testing.T, o open) {
	s, ctx := o("nodes"), t.Context()
	b := store.Node{Name: "slave", Kind: "data", Addrs: cluster.Addresses{SQL: "h:5433"}, Joined: time.Unix(5, 0).UTC()}
	a := store.Node{Name: "master", Kind: "data", Location: "x"}
	for _, n := range []store.Node{b, a, a} {
		if err := s.PutNode(ctx, n); err != nil {
			t.Fatal(err)
		}
	}
	if d := cmp.Diff([]store.Node{a, b}, must[[]store.Node](t)(s.Nodes(ctx))); d != "" {
		t.Fatal(d)
	}
	if err := errors.Join(s.RemoveNode(ctx, "master"), s.RemoveNode(ctx, "master")); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]store.Node{b}, must[[]store.Node](t)(s.Nodes(ctx))); d != "" {
		t.Fatal(d)
	}
	// What was removed comes back only when it has joined anew.
	wantErr(t, s.PutNode(ctx, a), store.ErrRemoved)
	if d := cmp.Diff([]string{"master"}, must[[]string](t)(s.RemovedNodes(ctx))); d != "" {
		t.Fatal(d)
	}
	wantErr(t, s.RemoveNode(ctx, "a/b"), store.ErrInvalid)
	if err := errors.Join(s.ReadmitNode(ctx, "master"), s.ReadmitNode(ctx, "slave"), s.PutNode(ctx, a)); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string(nil), must[[]string](t)(s.RemovedNodes(ctx))); d != "" {
		t.Fatal(d)
	}
}

func testConfig(t *testing.T, o open) {
	s, ctx := o("config"), t.Context()
	cfg, rev, err := s.Config(ctx)
	if err != nil || cfg != nil || rev != 0 {
		t.Fatalf("empty: %s %d %v", cfg, rev, err)
	}
	rev = must[int64](t)(s.PutConfig(ctx, 0, json.RawMessage(`{"a":1}`)))
	_, err = s.PutConfig(ctx, 0, json.RawMessage(`{"a":2}`))
	wantErr(t, err, store.ErrConflict)
	_, err = s.PutConfig(ctx, rev, json.RawMessage(`{`))
	wantErr(t, err, store.ErrInvalid)
	second := must[int64](t)(s.PutConfig(ctx, rev, json.RawMessage(`{"a":3}`)))
	cfg, rev, err = s.Config(ctx)
	if err != nil || string(cfg) != `{"a":3}` || rev != second {
		t.Fatalf("%s %d %v", cfg, rev, err)
	}
}

func testTokens(t *testing.T, o open) {
	ctx := t.Context()
	s := o("tokens")
	tok := store.Token{ID: "t1", Data: []byte{0, 1, 255}, By: "me", Expires: time.Now().Add(time.Hour).UTC().Truncate(time.Second)}
	if err := s.CreateToken(ctx, tok); err != nil {
		t.Fatal(err)
	}
	wantErr(t, s.CreateToken(ctx, tok), store.ErrExists)
	// Of many users at once each sees what the one before it wrote.
	var wg sync.WaitGroup
	for i := range 6 {
		user := o("tokens")
		wg.Go(func() {
			err := user.UpdateToken(ctx, "t1", func(data []byte) ([]byte, error) { return append(data, byte(i)), nil })
			if err != nil {
				t.Errorf("user %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	refused := errors.New("refused")
	var seen []byte
	err := s.UpdateToken(ctx, "t1", func(data []byte) ([]byte, error) { seen = data; return nil, refused })
	wantErr(t, err, refused)
	if d := cmp.Diff([]byte{0, 1, 255}, seen[:3]); d != "" {
		t.Fatal(d)
	}
	users := append([]byte(nil), seen[3:]...)
	slices.Sort(users)
	if d := cmp.Diff([]byte{0, 1, 2, 3, 4, 5}, users); d != "" {
		t.Fatal(d)
	}
	// A refusal wrote nothing, and nothing but the data changes.
	same := func(data []byte) ([]byte, error) {
		if d := cmp.Diff(seen, data); d != "" {
			t.Error(d)
		}
		return data, nil
	}
	if err := s.UpdateToken(ctx, "t1", same); err != nil {
		t.Fatal(err)
	}
	wantErr(t, s.UpdateToken(ctx, "none", same), store.ErrNotFound)
	wantErr(t, s.UpdateToken(ctx, "a/b", same), store.ErrInvalid)
	testOldTokens(t, s)
	if err := s.DropTokens(ctx); err != nil {
		t.Fatal(err)
	}
	wantErr(t, s.UpdateToken(ctx, "t1", same), store.ErrNotFound)
}

// testOldTokens: an expired token can be asked for during a day.
func testOldTokens(t *testing.T, s store.Store) {
	ctx := t.Context()
	for id, age := range map[string]time.Duration{"hour": time.Hour, "days": 48 * time.Hour} {
		if err := s.CreateToken(ctx, store.Token{ID: id, Expires: time.Now().Add(-age)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.CreateToken(ctx, store.Token{ID: "next", Expires: time.Now().Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	keep := func(data []byte) ([]byte, error) { return data, nil }
	if err := s.UpdateToken(ctx, "hour", keep); err != nil {
		t.Fatal(err)
	}
	wantErr(t, s.UpdateToken(ctx, "days", keep), store.ErrNotFound)
}

func testSecret(t *testing.T, o open) {
	s, ctx := o("secret"), t.Context()
	_, err := s.Secret(ctx)
	wantErr(t, err, store.ErrNotFound)
	want := []byte{0, 200, 10}
	if err := s.CreateSecret(ctx, want); err != nil {
		t.Fatal(err)
	}
	wantErr(t, s.CreateSecret(ctx, []byte("x")), store.ErrExists)
	if got := must[[]byte](t)(s.Secret(ctx)); string(got) != string(want) {
		t.Fatalf("secret %v", got)
	}
	// Everybody's change is in it, and one that is refused changes nothing.
	var all sync.WaitGroup
	for i := range 5 {
		user := o("secret")
		all.Go(func() {
			if err := user.UpdateSecret(ctx, func(old []byte) ([]byte, error) { return append(old, byte(i)), nil }); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	refused := errors.New("no")
	if err := s.UpdateSecret(ctx, func([]byte) ([]byte, error) { return nil, refused }); err != refused {
		t.Errorf("refused: %v", err)
	}
	if got := must[[]byte](t)(s.Secret(ctx)); len(got) != len(want)+5 {
		t.Errorf("after five changes: %v", got)
	}
}

func testStatus(t *testing.T, o open) {
	st := must[store.Status](t)(o("status").Status(t.Context()))
	if st.Voters != 1 || st.Up != 1 || !st.Quorum || st.Leader == "" || len(st.Members) != 1 || !st.Members[0].Leader {
		t.Fatalf("%+v", st)
	}
}

func testOwnCopy(t *testing.T, o open) {
	s, ctx := o("own"), t.Context()
	mine := term(1)
	must[int64](t)(s.Create(ctx, mine))
	mine.Sync[0].Name = "changed"
	a := must[store.Snapshot](t)(s.Read(ctx))
	a.Term.Sync[0].Name = "also changed"
	if b := must[store.Snapshot](t)(s.Read(ctx)); b.Term.Sync[0].Name != "slave" {
		t.Fatal("two readers share memory")
	}
}

func testCancelled(t *testing.T, o open) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := o("cancelled").Read(ctx); err == nil {
		t.Fatal("a cancelled read succeeds")
	}
	_, err := o("cancelled").Create(ctx, term(1))
	wantErr(t, err, store.ErrUnreachable)
	if got := must[store.Snapshot](t)(o("cancelled").Read(t.Context())); got.Term != nil {
		t.Fatal("a write that was certainly not sent was applied")
	}
}
