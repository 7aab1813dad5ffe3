package postgres

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"manada/internal/cluster"
)

// Facts describe a running instance to people: GET /v1/postgres. The slots that
// a standby keeps for the others, in case it is promoted, are not counted.
type Facts struct {
	Version        string      `json:"version"`
	Size           string      `json:"size"` // of all databases, as pg_size_pretty has it
	InRecovery     bool        `json:"in_recovery"`
	ArchiveMode    string      `json:"archive_mode"`
	ArchiveCommand string      `json:"archive_command"`
	ReadyFiles     int         `json:"ready_files"` // WAL segments that wait to be archived
	Senders        int         `json:"senders"`
	MaxSenders     int         `json:"max_senders"`
	Attached       []string    `json:"attached"` // nodes that stream from here
	ActiveSlots    int         `json:"active_slots"`
	InactiveSlots  []string    `json:"inactive_slots"`
	MaxSlots       int         `json:"max_slots"`
	LagSeconds     int         `json:"lag_seconds"`
	Received       cluster.LSN `json:"received_lsn"`
	Replayed       cluster.LSN `json:"replayed_lsn"`
}

const factsSQL = `select current_setting('server_version'), pg_size_pretty(sum(pg_database_size(oid))), pg_is_in_recovery(),
 current_setting('archive_mode'), current_setting('archive_command'), current_setting('max_wal_senders'), current_setting('max_replication_slots'),
 case when not pg_is_in_recovery() or pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() then 0
 else coalesce(extract(epoch from now() - pg_last_xact_replay_timestamp()), 0)::int end,
 coalesce(pg_last_wal_receive_lsn(), '0/0'), coalesce(pg_last_wal_replay_lsn(), '0/0')
 from pg_database;
select application_name from pg_stat_replication where state = 'streaming';
select slot_name, active from pg_replication_slots where slot_type = 'physical'
 and not (pg_is_in_recovery() and slot_name ~ '^manada_') order by slot_name;
select count(*) from pg_stat_replication`

// Facts asks the instance; the error tells that it does not answer.
func (i *Instance) Facts(ctx context.Context) (Facts, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*i.cfg.QueryTimeout)
	defer cancel()
	var f Facts
	res, err := i.query(ctx, factsSQL)
	if err != nil {
		return f, fmt.Errorf("ask PostgreSQL of %s: %w", i.cfg.Node, err)
	}
	r := res[0][0]
	version, _, _ := strings.Cut(string(r[0]), " ") // without Debian's package
	f = Facts{Version: version, Size: string(r[1]), InRecovery: boolOf(r[2]), ArchiveMode: string(r[3]), ArchiveCommand: string(r[4]),
		MaxSenders: int(intOf(r[5])), MaxSlots: int(intOf(r[6])), LagSeconds: int(intOf(r[7])), Received: lsnOf(r[8]), Replayed: lsnOf(r[9]),
		Senders: int(intOf(res[3][0][0]))}
	for _, row := range res[1] {
		node, _, ok := cluster.ParseCertifiedName(string(row[0]))
		if !ok {
			node, _, ok = strings.Cut(string(row[0]), "~")
		}
		if ok {
			f.Attached = append(f.Attached, node)
		}
	}
	for _, row := range res[2] {
		if boolOf(row[1]) {
			f.ActiveSlots++
		} else {
			f.InactiveSlots = append(f.InactiveSlots, string(row[0]))
		}
	}
	f.ReadyFiles = readyFiles(i.cfg.DataDir)
	return f, nil
}

func readyFiles(dataDir string) int {
	m, err := filepath.Glob(filepath.Join(dataDir, "pg_wal", "archive_status", "*.ready"))
	if err != nil && !os.IsNotExist(err) {
		return 0
	}
	return len(m)
}
