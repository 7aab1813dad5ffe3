package postgres

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"manada/internal/cluster"
	"manada/internal/guardian"
)

// Observe looks at the disk, the process table and, when a postmaster runs, at
// PostgreSQL itself. It takes at most QueryTimeout more than a moment: a
// PostgreSQL that does not answer is reported as hung. The error tells that
// nothing could be learned (the guardian does not answer).
func (i *Instance) Observe(ctx context.Context) (Observation, error) {
	o := Observation{At: time.Now()}
	st, err := i.sup.Status(ctx)
	if err != nil {
		return o, err
	}
	o.TreeEmpty, o.Exit = st.TreeEmpty, st.Exit
	i.observeDisk(&o)
	if !st.Running {
		o.State = cluster.PostgresDying
		if st.TreeEmpty {
			o.State = cluster.PostgresDown
		}
		return o, nil
	}
	o.PID, o.StartedAt = st.PID, st.StartedAt
	if o.Receivers, err = i.receivers(st.PID); err != nil && !errors.Is(err, os.ErrNotExist) {
		return o, err
	}
	i.observeLive(ctx, &o, st)
	return o, nil
}

// observeDisk reads what the directory says of itself.
func (i *Instance) observeDisk(o *Observation) {
	note := func(err error) {
		if err != nil && o.DataError == "" {
			o.DataError = err.Error()
		}
	}
	var err error
	o.Poison, err = i.Poison()
	note(err)
	o.Promise, err = i.Promise()
	note(err)
	o.Restore, err = i.RestoreMark()
	note(err)
	o.RestoreDone = o.Restore != nil && i.restoreDone(o.Restore)
	m, err := i.readMarks()
	note(err)
	o.LedEpoch, o.FormerPrimary, o.Remade = m.LedEpoch, m.FormerPrimary, m.Remade
	o.Rewound, o.RewoundIn = m.Rewound, m.RewoundIn
	o.Instance, err = i.InstanceID()
	note(err)
	o.Upstream = i.renderedUpstream()
	c, err := ReadControl(i.cfg.DataDir)
	if err == nil {
		o.HasData, o.Control, o.CleanStop = true, &c, c.State.Clean()
		// A base backup and a rewound directory carry the source's state; they
		// have standby.signal. A primary started by hand had to remove it.
		o.FormerPrimary = o.FormerPrimary || c.State.Primary() && !i.hasStandbySignal() && (!m.Founded || m.Served)
	} else if !errors.Is(err, os.ErrNotExist) {
		note(err)
	}
}

func (i *Instance) hasStandbySignal() bool {
	_, err := os.Stat(filepath.Join(i.cfg.DataDir, "standby.signal"))
	return err == nil
}

// observeLive asks PostgreSQL.
func (i *Instance) observeLive(ctx context.Context, o *Observation, st guardian.Status) {
	pid, status := i.pidFile()
	if pid != st.PID || status == "starting" || status == "" {
		o.State, o.Why = cluster.PostgresStarting, "starting, or recovering without being consistent yet"
		return
	}
	ctx, cancel := context.WithTimeout(ctx, i.cfg.QueryTimeout)
	defer cancel()
	o.Started = i.senderLog.look(i.cfg.LogFile) // before who is there: who is not there is gone
	res, err := i.query(ctx, observeSQL)
	if err != nil {
		o.State, o.Why = i.stateOfError(ctx, err, st), err.Error()
		return
	}
	i.readMain(o, res)
	i.readLists(o, res)
	if o.Paused && o.Restore != nil && o.Control != nil {
		o.Unfit = i.unfit(ctx, o.Control)
	}
	if o.ControlTable = boolOf(res[6][0][0]); !o.ControlTable {
		// Not there, or not ours: nothing of it is touched.
	} else if r, err := i.query(ctx, controlRowSQL); err == nil {
		o.ControlRow = readControlRow(r[1])
	} else if code(err) == "" {
		o.State, o.Why = i.stateOfError(ctx, err, st), err.Error()
		return
	}
	o.Crowded = res[6][0][1] != nil && intOf(res[6][0][1]) < room
	o.NewConnection, o.Refused = i.checkNewConnection(ctx)
	switch {
	case st.Asked != "" || status == "stopping":
		o.State = cluster.PostgresStopping
	case timedOut(o.NewConnection):
		o.State, o.Why = cluster.PostgresHung, "no new connection is accepted: "+o.NewConnection.Error()
	case o.Recovering:
		o.State = cluster.PostgresStandby
	default:
		o.State, o.FormerPrimary = cluster.PostgresPrimary, true
	}
}

func timedOut(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded)
}

// stateOfError tells a PostgreSQL that says "not now" from one that says nothing. A
// stop that began after st was read ends the session without a word that gets here,
// but it is in postmaster.pid before (pmdie in postmaster.c).
func (i *Instance) stateOfError(ctx context.Context, err error, st guardian.Status) cluster.PostgresState {
	_, status := i.pidFile()
	switch {
	case st.Asked != "" || status == "stopping" || strings.Contains(err.Error(), "is shutting down"):
		return cluster.PostgresStopping
	case code(err) == "57P03":
		return cluster.PostgresStarting
	case timedOut(err) || ctx.Err() != nil || st.Stopped:
		return cluster.PostgresHung
	case code(err) != "":
		return cluster.PostgresHung // it answers, but not us: too many connections, out of memory
	default:
		return cluster.PostgresStarting // the socket is not there yet
	}
}

// observeSQL is one round trip. The end of a primary's WAL is read last: a
// position that a standby reports beyond it is then a lie for certain (C1), and
// not one that was written in between.
var observeSQL = `
select r, case when r then pg_last_wal_receive_lsn() end, case when r then pg_last_wal_replay_lsn() end,
  case when not r then pg_current_wal_flush_lsn() end, case when not r then pg_current_wal_insert_lsn() end,
  case when not r then substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) end,
  case when not r then null when pg_last_wal_replay_lsn() >= pg_last_wal_receive_lsn() then 0
    else greatest(0, (extract(epoch from clock_timestamp() - pg_last_xact_replay_timestamp()) * 1000)::bigint) end,
  case when r then pg_get_wal_replay_pause_state() <> 'not paused' end,
  w.status, w.received_tli, (extract(epoch from clock_timestamp() - w.last_msg_receipt_time) * 1000)::bigint, w.conninfo
from (select pg_is_in_recovery() r) x left join pg_stat_wal_receiver w on true;
select name, setting, sourcefile, pending_restart from pg_settings s where name in ('synchronous_standby_names', 'max_wal_senders')
  or pending_restart and (source <> 'default' or exists (select from pg_file_settings f where lower(f.name) = s.name));
select s.pid, s.application_name, s.state, s.sync_state, s.sent_lsn, s.write_lsn, s.flush_lsn, s.replay_lsn, host(s.client_addr),
  extract(epoch from s.backend_start), (extract(epoch from clock_timestamp() - s.reply_time) * 1000)::bigint, s.usename
from pg_stat_replication s;
select pid, extract(epoch from query_start) from pg_stat_activity where wait_event = 'SyncRep';
select slot_name, active, restart_lsn, wal_status, slot_type from pg_replication_slots;
select case when not pg_is_in_recovery() then pg_current_wal_insert_lsn() end;
select ` + trusted("control") + `, ` + freeSQL

var controlRowSQL = trustedOnly + `select epoch, node, nonce from manada.control order by epoch desc limit 1`

func (i *Instance) readMain(o *Observation, res []rows) {
	r := res[0][0]
	o.Recovering = boolOf(r[0])
	o.Received, o.Replayed, o.Flushed, o.Inserted = lsnOf(r[1]), lsnOf(r[2]), lsnOf(r[3]), lsnOf(r[4])
	if r[6] != nil {
		lag := intOf(r[6])
		o.LagMS = &lag
	} else if o.Recovering && o.Received == 0 {
		zero := int64(0) // nothing was received since the start, nothing is outstanding
		o.LagMS = &zero
	}
	o.Paused = boolOf(r[7])
	o.ReceivedTL = cluster.Timeline(intOf(r[9]))
	// The view may lag behind the process table: both must say so.
	o.Streaming = string(r[8]) == "streaming" && len(o.Receivers) > 0
	o.ReceiverError = i.receiverWords.look(i.cfg.LogFile, o.At, o.Recovering && !o.Streaming && o.Upstream != "")
	if o.Streaming {
		o.MessageAge = time.Duration(max(0, intOf(r[10]))) * time.Millisecond
	}
	o.ConnInfoOf = conninfoValue(string(r[11]), "application_name")
	o.Timeline = parseTimeline(r[5])
	o.HistoryFault = i.historyFault(o.Timeline)
	if o.Recovering && o.Control != nil {
		o.Timeline = i.timelineAt(max(o.Control.Timeline, o.Control.MinRecoveryTL, o.ReceivedTL), o.Replayed)
	}
}

func (i *Instance) readLists(o *Observation, res []rows) {
	for _, r := range res[1] {
		switch string(r[0]) {
		case "synchronous_standby_names":
			o.Sync, o.SyncSource = string(r[1]), string(r[2])
		case "max_wal_senders":
			o.MaxSenders = int(intOf(r[1]))
		}
		if boolOf(r[3]) {
			o.PendingRestart = append(o.PendingRestart, string(r[0]))
		}
	}
	o.Inserted = max(o.Inserted, lsnOf(res[5][0][0]))
	end := max(o.Inserted, o.Flushed)
	for _, r := range res[2] {
		s := Sender{Sender: cluster.Sender{PID: int(intOf(r[0])), Name: string(r[1]), State: string(r[2]), Sync: string(r[3]),
			Flush: lsnOf(r[6]), Replay: lsnOf(r[7])},
			Role: string(r[11]), Sent: lsnOf(r[4]), Write: lsnOf(r[5]), Addr: string(r[8]), BackendStart: epochTime(r[9]),
			ReplyAge: time.Duration(max(0, intOf(r[10]))) * time.Millisecond}
		if s.Flush != 0 && end > s.Flush {
			s.LagBytes = int64(end - s.Flush)
		}
		o.Senders = append(o.Senders, s)
	}
	o.Waiting = len(res[3])
	o.OldestWait = i.waits.oldest(o.At, res[3])
	for _, r := range res[4] {
		o.Slots = append(o.Slots, Slot{Name: string(r[0]), Active: boolOf(r[1]), Restart: lsnOf(r[2]), Status: string(r[3]), Logical: string(r[4]) == "logical"})
	}
}

func readControlRow(r rows) *ControlRow {
	if len(r) == 0 {
		return nil
	}
	return &ControlRow{Epoch: uint64(intOf(r[0][0])), Node: string(r[0][1]), Nonce: string(r[0][2])}
}
