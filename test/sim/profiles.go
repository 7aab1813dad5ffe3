package sim

import (
	"fmt"

	"manada/internal/decide"
)

// Even is the ordinary profile: every misfortune has its share.
func Even(k int) Profile {
	return Profile{
		Name: fmt.Sprintf("even%d", k), WantK: k, Steps: 240, Faults: 12, Weights: even(),
		reply: 800, reset: 500, beatLoss: 20, conflict: 4, slowReload: 40, slowAct: 40, flaky: 20, late: 300, garbage: 200,
	}
}

// Profiles are Even for k = 1 and 2, strict durability, and those that look
// hardest where one rule is needed. The protocol as it is survives all of them.
func Profiles() []Profile {
	strict := Even(1)
	strict.Name, strict.Strict = "strict", true
	return []Profile{Even(1), Even(2), strict, shutting(), diverging(), receiving(), branching(), doubting(), doubled(), forgetting(), lagging(), wavering(), intruded(1), intruded(2), handing()}
}

// ProfileNamed finds one of Profiles.
func ProfileNamed(name string) (Profile, bool) {
	for _, p := range Profiles() {
		if p.Name == name {
			return p, true
		}
	}
	return Profile{}, false
}

// bias adds weight to some kinds of faults.
func (p Profile) bias(name string, weight int, kinds ...fault) Profile {
	p.Name = name
	for _, k := range kinds {
		p.Weights[k] += weight
	}
	return p
}

// shutting: hosts are stopped in order, and disks do not come back (last word).
func shutting() Profile {
	return Even(1).bias("shutting", 60, shutdown, lostDisk)
}

// diverging: leaders and standbys come and go, so that histories fork (C1, C2, C3).
func diverging() Profile {
	return Even(1).bias("diverging", 30, leaderDies, standbyLeaves, winnerDies, isolate)
}

// receiving: replay is stuck while leaders are suspected wrongly (C4).
func receiving() Profile {
	p := Even(1).bias("receiving", 40, replayStuck, leaderFreeze, cutOneWay)
	p.conflict = 30
	return p
}

// branching: epochs are won and lost before they open while others hold longer
// logs of older ones (C7).
func branching() Profile {
	return Even(1).bias("branching", 200, winnerDies, leaderCut)
}

// doubting: writes of the record with unknown outcomes, many of them applied
// later, while standbys come and go (H2).
func doubting() Profile {
	p := Even(1).bias("doubting", 40, storeFlaky, standbyLeaves, storeCut)
	p.flaky, p.late = 120, 800
	return p
}

// doubled: standbys lose their link and connect again before the primary has
// noticed.
func doubled() Profile {
	p := Even(2).bias("doubled", 60, cutOneWay, pgCrash, standbyLeaves)
	p.reset = 60
	return p
}

// forgetting: agents crash in the middle of everything (H2, H3).
func forgetting() Profile {
	p := Even(1).bias("forgetting", 60, agentCrash, crashWrite, standbyLeaves, leaderFreeze)
	p.flaky, p.late = 60, 800
	return p
}

// wavering: leaders are suspected wrongly and agents die in mid-freeze (H3, M1).
func wavering() Profile {
	p := Even(1).bias("wavering", 80, promiseCrash, leaderFreeze, leaderCut)
	p.beatLoss = 100
	return p
}

// handing: switchovers while links, hosts and agents come and go.
func handing() Profile {
	return Even(1).bias("handing", 150, switchover).bias("handing", 20, isolate, cutBoth, agentCrash, agentFreeze, standbyLeaves)
}

// preparing: checkpoints before a switchover last long while standbys go.
func preparing() Profile {
	p := handing()
	p.slowPrepare = 900
	return p
}

// lagging: settings are followed late while standbys come and go (C2, C5, H4).
func lagging() Profile {
	p := Even(2).bias("lagging", 60, lateReload, slowCheckpoint, standbyLeaves)
	p.slowReload = 300
	return p
}

// intruded: somebody who is trusted with REPLICATION bears standbys' names, and
// others who are not try to, while standbys come and go (protocol: who may bear
// a name).
func intruded(k int) Profile {
	return Even(k).bias(fmt.Sprintf("intruded%d", k), 60, intruder, outside, standbyLeaves)
}

// Mutant is a protocol with one rule missing and the profile that looks there.
type Mutant struct {
	Name    string
	Finding string
	Profile Profile
}

// Mutants are the seven rules of decide.Mutation. C7 has no mutant that loses a
// commit: a log of an older epoch gets into sync no more, since a member shows
// the control row. What remains is a false parent in the record's history, and
// with it a false certificate.
func Mutants() []Mutant {
	without := func(p Profile, m decide.Mutation) Profile { p.Without = m; return p }
	loss := func(p Profile) Profile { p.lossOnly = true; return p }
	c1, c4 := without(diverging(), decide.WithoutCertificate), without(receiving(), decide.WithoutReceiverGone)
	return []Mutant{
		{"WithoutCertificate", "C1", c1},
		{"WithoutCertificate, until a commit is lost", "C1", loss(c1)},
		{"WithoutNarrowingFlush", "C2", without(diverging(), decide.WithoutNarrowingFlush)},
		{"WithoutOpening", "C3", without(diverging(), decide.WithoutOpening)},
		{"WithoutReceiverGone", "C4", c4},
		{"WithoutReceiverGone, until a commit is lost", "C4", loss(c4)},
		{"WithoutWALEpoch", "C7", without(branching(), decide.WithoutWALEpoch)},
		{"WithoutSwapFirst", "degrade swaps first", without(diverging(), decide.WithoutSwapFirst)},
		{"WithoutBothValues", "H2", without(doubting(), decide.WithoutBothValues)},
		{"WithoutTheRest", "last word", without(shutting(), decide.WithoutTheRest)},
		{"WithoutRecord: ends the walsender only", "a stranger's name", without(intruded(1), decide.WithoutRecord)},
		{"WithoutHeld: goes on before the proxies answered", "drain", without(handing(), decide.WithoutHeld)},
		{"WithoutQuiet: the stop interrupts a COMMIT", "drain", without(handing(), decide.WithoutQuiet)},
		{"WithoutDuties: commits wait for a checkpoint", "drain", without(preparing(), decide.WithoutDuties)},
		{"WithoutHoldEnd: a hold without end", "drain", without(handing(), decide.WithoutHoldEnd)},
		{"WithoutClearing: the drain survives a takeover", "drain", without(handing(), decide.WithoutClearing)},
		{"WithoutRole: the name alone counts", "a stranger's name", without(intruded(1), decide.WithoutRole)},
	}
}

// AgentMutants are agents that neglect a duty which decide takes for granted.
func AgentMutants() []Mutant {
	with := func(p Profile, f func(*Profile)) Profile { f(&p); return p }
	loss := func(p Profile) Profile { p.lossOnly = true; return p }
	return []Mutant{
		{"forgetful: earlier writes count as settled after a restart", "H2", with(forgetting(), func(p *Profile) { p.forgetful = true })},
		{"hasty: Since is read before every walsender follows", "C2, H4", with(lagging(), func(p *Profile) { p.hasty = true })},
		{"unproved: the probe need not be seen waiting", "C5", with(lagging(), func(p *Profile) { p.unproved = true })},
		{"amnesiac: the promise is not on disk", "H3", with(wavering(), func(p *Profile) { p.amnesiac = true })},
		{"trusting: the end of WAL is read from a record that is not checked", "end of WAL", with(diverging(), func(p *Profile) { p.trusting = true })},
		{"trusting, until a commit is lost", "end of WAL", with(loss(diverging()), func(p *Profile) { p.trusting = true })},
		{"databaseIn: lets database walsenders in", "who may", with(intruded(1), func(p *Profile) { p.databaseIn = true })},
		{"credulous: k comes back without a new proof", "a stranger's name", with(intruded(1), func(p *Profile) { p.credulous = true })},
		{"anyEpoch: a proxy obeys the drain of another epoch", "drain", with(handing(), func(p *Profile) { p.anyEpoch, p.Without = true, decide.WithoutClearing })},
		{"slotless: a standby may be counted twice", "k = 2", with(doubled(), func(p *Profile) { p.slotless = true })},
	}
}
