package catalog

import "strings"

func set(lists ...string) map[string]bool {
	m := map[string]bool{}
	for _, w := range strings.Fields(strings.Join(lists, " ")) {
		m[w] = true
	}
	return m
}

// harmless are built-in functions that are volatile and leave nothing behind in the
// session. A volatile one that is not here counts as dangerous; TestBuiltIn looks at
// each of them.
var harmless = set(
	`RI_FKey_cascade_del RI_FKey_cascade_upd RI_FKey_check_ins RI_FKey_check_upd RI_FKey_noaction_del RI_FKey_noaction_upd
	 RI_FKey_restrict_del RI_FKey_restrict_upd RI_FKey_setdefault_del RI_FKey_setdefault_upd RI_FKey_setnull_del
	 RI_FKey_setnull_upd suppress_redundant_updates_trigger tsvector_update_trigger tsvector_update_trigger_column
	 unique_key_recheck`,
	`amvalidate bernoulli system brinhandler bthandler ginhandler gisthandler hashhandler spghandler heap_tableam_handler
	 dsnowball_init dsnowball_lexize plpgsql_call_handler plpgsql_inline_handler plpgsql_validator`,
	`brin_desummarize_range brin_summarize_new_values brin_summarize_range gin_clean_pending_list currtid2
	 clock_timestamp timeofday random gen_random_uuid current_query nextval setval pg_sequence_last_value`,
	`lo_close lo_creat lo_create lo_export lo_from_bytea lo_get lo_import lo_lseek lo_lseek64 lo_open lo_put lo_tell
	 lo_tell64 lo_truncate lo_truncate64 lo_unlink loread lowrite`,
	`pg_advisory_xact_lock pg_advisory_xact_lock_shared pg_try_advisory_xact_lock pg_try_advisory_xact_lock_shared
	 pg_notify pg_notification_queue_usage pg_sleep pg_sleep_for pg_sleep_until pg_cancel_backend pg_terminate_backend
	 pg_blocking_pids pg_safe_snapshot_blocking_pids pg_isolation_test_session_is_blocked pg_lock_status
	 pg_export_snapshot pg_logical_emit_message pg_prepared_xact`,
	`pg_collation_actual_version pg_database_collation_actual_version pg_control_checkpoint pg_control_init
	 pg_control_recovery pg_control_system pg_current_logfile pg_current_wal_flush_lsn pg_current_wal_insert_lsn
	 pg_current_wal_lsn pg_database_size pg_get_backend_memory_contexts pg_get_multixact_members
	 pg_get_shmem_allocations pg_get_wal_replay_pause_state pg_get_wal_resource_managers pg_hba_file_rules
	 pg_ident_file_mappings pg_import_system_collations pg_indexes_size pg_is_in_recovery pg_is_wal_replay_paused
	 pg_jit_available pg_last_committed_xact pg_last_wal_receive_lsn pg_last_wal_replay_lsn
	 pg_last_xact_replay_timestamp pg_log_backend_memory_contexts pg_partition_ancestors pg_partition_tree
	 pg_relation_size pg_table_size pg_tablespace_size pg_total_relation_size pg_show_all_file_settings
	 pg_xact_commit_timestamp pg_xact_commit_timestamp_origin pg_xact_status txid_status`,
	`pg_ls_archive_statusdir pg_ls_dir pg_ls_logdir pg_ls_logicalmapdir pg_ls_logicalsnapdir pg_ls_replslotdir
	 pg_ls_tmpdir pg_ls_waldir pg_read_binary_file pg_read_file pg_read_file_old pg_stat_file`,
	`pg_create_restore_point pg_drop_replication_slot pg_promote pg_reload_conf pg_rotate_logfile pg_rotate_logfile_old
	 pg_switch_wal pg_wal_replay_pause pg_wal_replay_resume pg_replication_slot_advance pg_replication_origin_advance
	 pg_replication_origin_create pg_replication_origin_drop pg_replication_origin_progress
	 pg_replication_origin_session_is_setup pg_replication_origin_session_progress pg_show_replication_origin_status
	 pg_logical_slot_get_binary_changes pg_logical_slot_get_changes pg_logical_slot_peek_binary_changes
	 pg_logical_slot_peek_changes pg_nextoid pg_extension_config_dump`,
	`pg_stat_clear_snapshot pg_stat_force_next_flush pg_stat_get_recovery_prefetch pg_stat_get_xact_blocks_fetched
	 pg_stat_get_xact_blocks_hit pg_stat_get_xact_function_calls pg_stat_get_xact_function_self_time
	 pg_stat_get_xact_function_total_time pg_stat_get_xact_numscans pg_stat_get_xact_tuples_deleted
	 pg_stat_get_xact_tuples_fetched pg_stat_get_xact_tuples_hot_updated pg_stat_get_xact_tuples_inserted
	 pg_stat_get_xact_tuples_returned pg_stat_get_xact_tuples_updated pg_stat_have_stats pg_stat_reset
	 pg_stat_reset_replication_slot pg_stat_reset_shared pg_stat_reset_single_function_counters
	 pg_stat_reset_single_table_counters pg_stat_reset_slru pg_stat_reset_subscription_stats`)

// runners are built-in, not volatile, and run a text or a view that is named in one.
var runners = set(`table_to_xml table_to_xmlschema table_to_xml_and_xmlschema schema_to_xml schema_to_xmlschema
	schema_to_xml_and_xmlschema database_to_xml database_to_xmlschema database_to_xml_and_xmlschema`)

// extensions whose functions leave nothing behind, but for those named.
var extensions = map[string]map[string]bool{
	"citext": nil, "hstore": nil, "ltree": nil, "cube": nil, "seg": nil, "isn": set("isn_weak"), "intarray": nil, "intagg": nil,
	"earthdistance": nil, "pg_trgm": set("set_limit"), "fuzzystrmatch": nil, "unaccent": nil, "dict_int": nil, "dict_xsyn": nil,
	"btree_gin": nil, "btree_gist": nil, "bloom": nil, "uuid-ossp": nil, "pgcrypto": nil, "lo": nil, "moddatetime": nil,
	"insert_username": nil, "autoinc": nil, "refint": nil, "tcn": nil, "tsm_system_rows": nil, "tsm_system_time": nil,
	"file_fdw": nil, "postgres_fdw": nil, "pg_stat_statements": nil, "pgstattuple": nil, "pageinspect": nil, "pg_buffercache": nil,
	"pg_freespacemap": nil, "pg_prewarm": nil, "pg_visibility": nil, "pgrowlocks": nil, "sslinfo": nil, "amcheck": nil, "pg_walinspect": nil,
	"tablefunc": set("crosstab crosstab2 crosstab3 crosstab4 crosstabn connectby"), "vector": nil,
}

// implied are operators that are used without being written: IN, BETWEEN, LIKE,
// CASE, DISTINCT, USING, UNION, ORDER BY.
var implied = set("= < > <= >= <> ~~ !~~ ~~* !~~*")

// telling are words that begin a statement which may leave something behind.
var telling = set("set reset listen unlisten prepare deallocate load discard do")

// starters may stand before a statement of PL/pgSQL, temporary before TEMP.
var (
	starters  = set("begin then else loop atomic")
	temporary = set("create local global replace into")
)

// ddl are words that any event trigger may follow.
var ddl = []string{"create", "alter", "drop", "grant", "revoke", "comment", "security", "refresh", "reindex", "import", "into", "reassign"}
