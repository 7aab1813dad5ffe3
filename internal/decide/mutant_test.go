package decide

import "testing"

// The properties are worth something: without a rule they object, and they see
// every verb that a herd that exists can ask for.
func TestPropertiesNoticeMutants(t *testing.T) {
	const views = 60000
	gen := anyView()
	open := map[Mutation]string{
		WithoutCertificate: "C1", WithoutNarrowingFlush: "C2", WithoutOpening: "C3", WithoutReceiverGone: "C4",
		WithoutWALEpoch: "C7", WithoutSwapFirst: "degrading", WithoutBothValues: "H2",
		WithoutTheRest: "last word",
		WithoutRecord:  "ends the walsender only", WithoutRole: "the name alone counts", WithoutRestart: "ends the liar only",
		WithoutHeld: "goes on before the proxies answered", WithoutQuiet: "interrupts a COMMIT", WithoutClearing: "a drain survives a takeover",
		WithoutStandingAside: "a takeover during a restore", WithoutTail: "a restore that loses commits",
	}
	seen := map[Verb]int{}
	for i := 0; i < views; i++ {
		v := gen.Example(i)
		for _, a := range Decide(v).Actions {
			seen[a.Verb]++
		}
		for m, finding := range open {
			v.Without = m
			for _, a := range Decide(v).Actions {
				if why := unsafe(v, a); why != "" {
					t.Logf("%s: noticed at view %d: %s: %s", finding, i, a, why)
					delete(open, m)
				}
			}
		}
	}
	for _, finding := range open {
		t.Errorf("%s: nothing noticed in %d views", finding, views)
	}
	t.Log(seen)
	for _, verb := range []Verb{ReadStore, Settle, Swap, Withdraw, Promise, DropPromise, CutUpstream, EndReceiver, ReadPosition, StartStandby,
		StartFounding, Stop, Prepare, Undrain, HandOver, Promote, WriteControl, SetSync, Probe, EndSenders, Follow, Rewind, Clone, Answer,
		ArchiveEnd, FetchWAL, ArchiveTail, RestoreData, RecoverToEnd, RecoverAlong, UndoRestore} {
		if seen[verb] == 0 {
			t.Errorf("%s is never asked for: the views are too narrow", verb)
		}
	}
}
