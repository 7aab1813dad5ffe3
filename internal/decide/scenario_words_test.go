package decide

import (
	"slices"
	"strings"
	"time"

	"manada/internal/cluster"
)

func (s *scenario) syncWord(k, val string) error {
	y := &s.v.Local.Sync
	switch k {
	case "hold":
		y.Setting = cluster.HoldCommits()
	case "alone":
		y.Setting = cluster.CommitAlone()
	case "any1", "any2", "any3": // any1=b@e7,c@e7
		y.Setting = cluster.SyncSetting{K: num(k[3:]), Names: list2(val)}
	case "proved":
		y.Proved = val == "true"
	case "since":
		y.Since = lsn(val)
	case "old":
		y.Old = nil
		for _, p := range list2(val) {
			y.Old = append(y.Old, num(p))
		}
	default:
		return unknownWord(k)
	}
	return nil
}

// drainWord is how far this run of the agent has come with handing over.
func (s *scenario) drainWord(k, val string) error {
	l := &s.v.Local.Drain
	ages := map[string]*time.Duration{"age": &l.Age, "hold-age": &l.HoldAge, "held": &l.HeldFor, "looked": &l.Looked, "oldest": &l.Oldest}
	if p, ok := ages[k]; ok {
		*p = dur(val)
		return nil
	}
	switch k {
	case "none":
		*l = LocalDrain{}
	case "id":
		l.ID = val
	case "to":
		l.To = val
	case "hold":
		l.Hold = val == "true"
	case "preparing":
		l.Preparing = val == "true"
	case "failed":
		l.Failed = val
	case "unheld":
		l.Unheld = list2(val)
	case "open":
		l.Open = num(val)
	case "in-commit":
		l.InCommit = num(val)
	default:
		return unknownWord(k)
	}
	return nil
}

var states = map[string]cluster.PostgresState{
	"down": cluster.PostgresDown, "dying": cluster.PostgresDying, "starting": cluster.PostgresStarting,
	"standby": cluster.PostgresStandby, "primary": cluster.PostgresPrimary, "stopping": cluster.PostgresStopping,
	"hung": cluster.PostgresHung, "none": cluster.PostgresNone,
}

func (s *scenario) localWord(k, val string) error {
	l, yes := &s.v.Local, val == "true"
	if st, ok := states[k]; ok {
		l.Postgres, l.TreeEmpty = st, st == cluster.PostgresDown
		return nil
	}
	switch k {
	case "empty":
		l.Empty = yes
	case "poisoned":
		l.Poisoned = yes
	case "founder":
		l.Founder = yes
	case "former":
		l.Former = yes
	case "clean":
		l.CleanStop = yes
	case "tree":
		l.TreeEmpty = !yes
	case "final":
		l.Final = yes
	case "receiver":
		l.Receiver = yes
	case "written":
		l.Written = yes
	case "may-lead":
		l.MayLead = yes
	case "leaving":
		l.Leaving = yes
	case "manual":
		l.Manual = yes
	case "instance":
		l.Instance = val
	case "system":
		l.SystemID = val
	case "busy":
		l.Busy = strings.TrimPrefix(val, "none")
	default:
		return s.localValue(k, val)
	}
	return nil
}

func (s *scenario) localValue(k, val string) error {
	l := &s.v.Local
	switch k {
	case "high":
		l.HighEpoch = uint64(num(val))
	case "promised":
		l.Promised = uint64(num(val))
	case "leads":
		l.Leads = uint64(num(val))
	case "timeline":
		l.Timeline = cluster.Timeline(num(val))
	case "wal":
		l.WAL = pos(val)
	case "fork":
		l.Fork = lsn(val)
	case "upstream":
		l.Upstream = strings.TrimPrefix(val, "none")
	case "nonce":
		l.ControlNonce = val
	case "stalled":
		l.Stalled = val
	case "impostor":
		l.Impostor = strings.TrimPrefix(val, "none")
	case "lie":
		l.Lie = strings.TrimPrefix(val, "none")
	case "max-senders":
		l.MaxSenders = num(val)
	case "handover":
		l.HandoverTo = val
	case "archived":
		l.Archived = lsn(val)
	case "remade":
		l.Remade = uint64(num(val))
	case "withdrawals":
		l.Withdrawals = num(val)
	case "rewound":
		l.Rewound = num(val)
	case "bad-history":
		l.BadHistory = val
	case "priority":
		l.Priority = num(val)
	default:
		if ok := s.restoreWord(k, val); ok {
			return nil
		}
		return s.localAge(k, val)
	}
	return nil
}

// restoreWord is how far a restore has come here.
func (s *scenario) restoreWord(k, val string) bool {
	m := &s.v.Local.Restore
	switch k {
	case "order":
		m.ID = strings.TrimPrefix(val, "none")
	case "tail":
		m.Tail = lsn(val)
	case "touched":
		m.Touched = val == "true"
	case "restored":
		m.Restored = val == "true"
	case "done":
		m.Done = val == "true"
	case "to-end":
		m.ToEnd = val == "true"
	case "replayed":
		m.Replayed = lsn(val)
	case "paused":
		m.Paused = val == "true"
	case "along":
		m.Along = cluster.Timeline(num(val))
	case "stop":
		m.Stop = lsn(val)
	case "obstacle":
		m.Obstacle = val
	default:
		return false
	}
	return true
}

func (s *scenario) localAge(k, val string) error {
	l := &s.v.Local
	ages := map[string]*time.Duration{
		"agent": &l.AgentFor, "down-for": &l.DownFor, "leads-for": &l.LeadsFor, "promised-for": &l.PromisedFor,
		"withdrawn": &l.WithdrawnAgo, "silent": &l.SilentFor, "stuck": &l.StuckFor,
	}
	p, ok := ages[k]
	if !ok {
		return unknownWord(k)
	}
	*p = dur(val)
	return nil
}

// peerWords: a peer is a fresh, healthy standby unless its words say otherwise.
func (s *scenario) peerWords(name string, words []string) error {
	i := slices.IndexFunc(s.v.Peers, func(p Peer) bool { return p.Node == name })
	if i < 0 {
		p := Peer{GuardianAge: time.Hour}
		p.Node, p.Kind, p.Instance, p.MayLead, p.StoreOK = name, "data", "i-"+name, true, true
		p.Postgres, p.Priority = cluster.PostgresStandby, 100
		s.v.Peers = append(s.v.Peers, p)
		slices.SortFunc(s.v.Peers, func(a, b Peer) int { return strings.Compare(a.Node, b.Node) })
		i = slices.IndexFunc(s.v.Peers, func(p Peer) bool { return p.Node == name })
	}
	for _, w := range words {
		k, val, has := strings.Cut(w, "=")
		if rest, neg := strings.CutPrefix(k, "no-"); neg && !has {
			k, val = rest, "false"
		} else if !has {
			val = "true"
		}
		if err := peerWord(&s.v.Peers[i], k, strings.ReplaceAll(val, "_", " ")); err != nil {
			return err
		}
	}
	return nil
}

func peerWord(p *Peer, k, val string) error {
	if st, ok := states[k]; ok {
		p.Postgres = st
		return nil
	}
	switch k {
	case "age":
		p.Age = dur(val)
	case "silent": // its agent says nothing any more
		p.Age = time.Hour
	case "guardian": // guardian=down: its word, now
		p.Guardian, p.GuardianAge = states[val], 0
	case "unseen":
		p.UnseenFor = dur(val)
	case "instance":
		p.Instance = val
	case "leads":
		p.Leads = uint64(num(val))
	case "wal":
		p.WAL = pos(val)
	case "certified": // certified=7: with the control row of e7, "n7"
		p.Certified, p.ControlNonce = uint64(num(val)), "n"+val
	case "nonce":
		p.ControlNonce = val
	case "frozen":
		p.Frozen = uint64(num(val))
	case "may-lead":
		p.MayLead = val == "true"
	case "manual":
		p.Manual = val == "true"
	case "priority":
		p.Priority = num(val)
	case "rejoin":
		p.Rejoin = val
	case "cannot":
		p.CannotCommit = val
	case "waiting":
		p.WaitingMS = dur(val).Milliseconds()
	case "store":
		p.StoreOK = val == "true"
	case "kind":
		p.Kind = val
	case "upstream":
		p.Upstream = val
	case "streaming":
		p.Streaming = val == "true"
	default:
		return unknownWord(k)
	}
	return nil
}
