package health

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"manada/internal/cluster"
)

// conditions are those that follow from the input, then those that the nodes
// say of themselves, then the caller's.
func (b *builder) conditions(st cluster.Status) []cluster.Condition {
	if cs := b.nobody(); cs != nil {
		return append(cs, b.in.Extra...)
	}
	var cs []cluster.Condition
	cs = append(cs, b.leadership()...)
	for i := range b.nodes {
		cs = append(cs, b.aboutNode(&b.nodes[i])...)
	}
	cs = append(cs, b.durability()...)
	cs = append(cs, b.store()...)
	cs = append(cs, b.backup(st)...)
	cs = append(cs, b.herd(st)...)
	for _, n := range b.nodes {
		if n.beat == nil || !n.agent {
			continue
		}
		cs = append(cs, n.beat.Conditions...)
	}
	return append(cs, b.in.Extra...)
}

func (b *builder) nobody() []cluster.Condition {
	if slices.ContainsFunc(b.nodes, func(n node) bool { return n.beat != nil }) {
		return nil
	}
	return []cluster.Condition{Say(NobodyAnswers, "")}
}

// leadership: who leads, and if nobody does, why.
func (b *builder) leadership() []cluster.Condition {
	var cs []cluster.Condition
	t := b.term
	switch {
	case t == nil:
		cs = append(cs, Say(NoPrimary, "", "why", "no term record is known"))
	case t.Restore != nil:
		cs = append(cs, Say(Restoring, t.Leader, "target", t.Restore.To(), "phase", b.restorePhase()))
	case !t.Open && b.node(t.Leader).beat == nil:
		cs = append(cs, Say(NoPrimary, t.Leader, "why",
			fmt.Sprintf("%s won epoch %d, did not open it and is unreachable", t.Leader, t.Epoch)))
	case !t.Open:
		cs = append(cs, Say(EpochNotOpen, t.Leader, "epoch", t.Epoch))
	case b.primary != "":
		p := b.node(b.primary)
		if p.beat.CannotCommit != "" {
			cs = append(cs, Say(CannotCommit, p.name, "why", p.beat.CannotCommit))
		}
		if p.beat.WritesWait != "" {
			cs = append(cs, Say(WritesWait, p.name, "why", p.beat.WritesWait))
		}
		if w := time.Duration(p.beat.WaitingMS) * time.Millisecond; w > b.lim.Waiting {
			cs = append(cs, Say(CommitsWaiting, p.name, "age", duration(w)))
		}
	default:
		cs = append(cs, b.notLeading(b.node(t.Leader)))
	}
	return append(cs, b.rivals()...)
}

// restorePhase is what the leader does for the restore.
func (b *builder) restorePhase() string {
	n := b.node(b.term.Leader)
	switch {
	case n.beat == nil:
		return n.name + " is unreachable, " + lastHeard(n.heard, n.age) + "; it goes on when it is back"
	case n.beat.Op != "":
		return n.beat.Op
	}
	return strings.TrimPrefix(n.beat.Reason, "restore: ")
}

// notLeading says what the leader of an open epoch does instead of leading.
func (b *builder) notLeading(n *node) cluster.Condition {
	if n.stopped {
		return Say(NoPrimary, n.name, "why", fmt.Sprintf("%s was stopped in order %s ago", n.name, duration(n.age)))
	}
	if n.beat == nil {
		return b.unreachable(n)
	}
	why := n.name + " does not run as primary"
	switch {
	case !n.agent:
		why = "the agent of " + n.name + " is down and its PostgreSQL is " + string(n.beat.Postgres)
	case n.beat.Rejoin != "":
		why = fmt.Sprintf("%s must be made anew first (%s)", n.name, n.beat.Rejoin)
	case n.beat.Postgres != cluster.PostgresPrimary:
		why = fmt.Sprintf("PostgreSQL on %s is %s", n.name, n.beat.Postgres)
	}
	return Say(NoPrimary, n.name, "why", why)
}

// rivals are nodes that claim to lead although the record names another, or
// that share an epoch.
func (b *builder) rivals() []cluster.Condition {
	if b.term == nil {
		return nil
	}
	var cs []cluster.Condition
	claim := map[uint64][]string{}
	for _, n := range b.nodes {
		if n.beat == nil || n.beat.Leads == 0 {
			continue
		}
		claim[n.beat.Leads] = append(claim[n.beat.Leads], n.name)
		if n.beat.Leads < b.term.Epoch {
			cs = append(cs, Say(OldPrimaryRuns, n.name, "epoch", n.beat.Leads))
		}
	}
	if names := claim[b.term.Epoch]; len(names) > 1 {
		cs = append(cs, Say(TwoLeaders, "", "nodes", strings.Join(names, " and "), "epoch", b.term.Epoch, "leader", b.term.Leader))
	}
	return cs
}

// aboutNode are the conditions of one node that do not concern leadership.
func (b *builder) aboutNode(n *node) []cluster.Condition {
	leader := b.term != nil && b.term.Leader == n.name
	if n.beat == nil {
		if leader { // said by leadership already
			return nil
		}
		if n.stopped {
			return []cluster.Condition{Say(StoppedInOrder, n.name, "ago", duration(n.age))}
		}
		return []cluster.Condition{Say(NodeUnreachable, n.name, "heard", lastHeard(n.heard, n.age))}
	}
	if !n.agent {
		return []cluster.Condition{Say(AgentDown, n.name, "postgres", n.beat.Postgres)}
	}
	var cs []cluster.Condition
	if b.term != nil && b.term.Restore != nil && n.kind == "data" {
		return nil // it is stopped on purpose
	}
	switch n.state {
	case cluster.StateDown:
		cs = append(cs, Say(PostgresDown, n.name, "state", postgresWord(n.beat.Postgres)))
	case cluster.StateHung:
		cs = append(cs, Say(PostgresHung, n.name))
	case cluster.StateQuarantined:
		cs = append(cs, Say(NodeQuarantined, n.name, "from", b.term.Lost.From))
	case cluster.StateRewinding:
		cs = append(cs, Say(StandbyRewinding, n.name, "op", optional(": ", n.beat.Op)))
	case cluster.StateCloning:
		cs = append(cs, Say(StandbyCloning, n.name, "op", optional(": ", n.beat.Op)))
	case cluster.StateStarting, cluster.StateStopping, cluster.StateNotStreaming:
		if !leader {
			cs = append(cs, b.notStreaming(n))
		}
	case cluster.StateFrozen:
		cs = append(cs, Say(TakeoverStarted, n.name, "epoch", n.beat.Frozen))
	}
	if behind := b.behind(n); behind != "" {
		cs = append(cs, Say(StandbyLagging, n.name, "lag", behind))
	}
	if n.beat.Suspects != "" {
		cs = append(cs, Say(LeaderSuspected, n.name, "why", n.beat.Suspects))
	}
	return cs
}

func (b *builder) notStreaming(n *node) cluster.Condition {
	upstream := "the primary"
	if b.primary != "" {
		upstream = b.primary
	}
	why := ""
	if n.state != cluster.StateNotStreaming {
		why = ": PostgreSQL is " + string(n.beat.Postgres)
	} else if n.beat.Op != "" {
		why = ": " + n.beat.Op
	} else if n.beat.ReceiverError != "" {
		why = ": " + n.beat.ReceiverError
	}
	return Say(StandbyNotStreaming, n.name, "upstream", upstream, "why", why)
}

// behind is a standby's lag in words when it is past a limit.
func (b *builder) behind(n *node) string {
	if !onHistory(n.state) {
		return ""
	}
	if n.lagged != nil && *n.lagged > b.lim.LagBytes {
		return bytesOf(*n.lagged)
	}
	if ms := n.beat.LagMS; ms != nil && time.Duration(*ms)*time.Millisecond > b.lim.Lag {
		return duration(time.Duration(*ms) * time.Millisecond)
	}
	return ""
}

// durability: does a commit wait for as many as it should?
func (b *builder) durability() []cluster.Condition {
	t := b.term
	if t == nil || !t.Open || t.Restore != nil || t.Durability == cluster.Async {
		return nil
	}
	data := 0
	for _, n := range b.nodes {
		if n.kind == "data" {
			data++
		}
	}
	switch {
	case t.K == 0 && t.Durability == cluster.Quorum && (t.WantK > 0 || data > 1):
		return []cluster.Condition{Say(CommitsAlone, t.Leader)}
	case t.K > 0 && t.K < t.WantK:
		return []cluster.Condition{Say(FewerSyncThanWanted, "", "k", t.K, "want", t.WantK)}
	}
	return nil
}

func (b *builder) backup(st cluster.Status) []cluster.Condition {
	k := b.in.Backup
	switch {
	case k == nil:
		return nil
	case k.Off:
		return []cluster.Condition{Say(BackupsOff, "")}
	case k.None:
		return []cluster.Condition{Say(NoRepository, "")}
	}
	if k.Unreachable != "" {
		since := "at all"
		if k.UnknownSince != nil {
			since = "for " + duration(b.in.Now.Sub(*k.UnknownSince))
		}
		return append(b.archive(st), Say(RepoUnreachable, k.Host, "since", since, "why", k.Unreachable))
	}
	cs := b.archive(st)
	if k.BackupErr != "" {
		cs = append(cs, Say(BackupFailed, "", "why", k.BackupErr))
	}
	if k.Damaged != "" {
		cs = append(cs, Say(BackupDamaged, "", "what", k.Damaged))
	}
	if k.Lost != "" {
		cs = append(cs, Say(BackupsLost, k.Host, "what", k.Lost))
	}
	if g := k.Gap; g.WAL != "" {
		cs = append(cs, Say(ArchiveGap, "", "segment", g.WAL, "cost", g.Cost))
	}
	if g := k.OldGap; g.WAL != "" {
		cs = append(cs, Say(OldArchiveGap, "", "segment", g.WAL, "cost", g.Cost))
	}
	if k.Full != "" {
		cs = append(cs, Say(RepoFull, k.Host, "why", k.Full))
	}
	if k.Missed != "" {
		cs = append(cs, Say(BackupMissed, "", "what", k.Missed))
	}
	if k.TestErr != "" {
		cs = append(cs, Say(RestoreTestFailed, "", "why", k.TestErr))
	}
	switch last := st.Backup.Last; {
	case last == nil:
		cs = append(cs, Say(NoBackup, ""))
	case b.in.Now.Sub(last.Stop) > b.lim.BackupAge:
		cs = append(cs, Say(BackupOld, "", "age", duration(b.in.Now.Sub(last.Stop))+" ago"))
	}
	return cs
}

// archive: does WAL get away?
func (b *builder) archive(st cluster.Status) []cluster.Condition {
	var cs []cluster.Condition
	if why := b.in.Backup.ArchiveErr; why != "" {
		cs = append(cs, Say(ArchiveFailing, "", "why", why))
	}
	oldest := time.Duration(0)
	if p := b.node(b.primary); p != nil && p.agent && p.beat.Waiting != nil {
		oldest = time.Duration(p.beat.Waiting.OldestMS) * time.Millisecond
	}
	if w := st.Backup.WaitingSegments; w != nil && *w > 0 && (*w > b.lim.WaitingSegments || oldest > b.lim.WaitingFor) {
		cs = append(cs, Say(SegmentsWaiting, "", "count", *w, "oldest", optional(", the oldest for ", durationOrNone(oldest))))
	}
	return cs
}

func durationOrNone(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return duration(d)
}

// herd: what concerns all of it.
func (b *builder) herd(st cluster.Status) []cluster.Condition {
	var cs []cluster.Condition
	if st.Paused {
		cs = append(cs, Say(Paused, ""))
	}
	versions := map[string]bool{}
	var said []string
	for _, n := range b.nodes {
		if n.beat == nil || !n.agent || n.beat.Version == "" {
			continue
		}
		if !versions[n.beat.Version] {
			said = append(said, n.name+" "+n.beat.Version)
		}
		versions[n.beat.Version] = true
		if t := n.beat.Term; n.kind == "proxy" && t != nil && b.term != nil && t.Epoch < b.term.Epoch {
			cs = append(cs, Say(ProxyBehindTerm, n.name, "epoch", t.Epoch, "newest", b.term.Epoch))
		}
	}
	if len(versions) > 1 {
		cs = append(cs, Say(VersionSkew, "", "versions", strings.Join(said, ", ")))
	}
	return cs
}

func postgresWord(s cluster.PostgresState) string {
	switch s {
	case cluster.PostgresDying:
		return "ending (the postmaster is gone, its processes are not)"
	}
	return "down"
}

func optional(before, s string) string {
	if s == "" {
		return ""
	}
	return before + s
}
