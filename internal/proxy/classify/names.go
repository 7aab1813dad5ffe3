package classify

import "strings"

func set(lists ...string) map[string]bool {
	m := map[string]bool{}
	for _, l := range lists {
		for _, w := range strings.Fields(l) {
			m[w] = true
		}
	}
	return m
}

// plain begin statements that are for the primary, whatever follows, and leave
// nothing behind in the session.
var plain = set(`abort analyze begin checkpoint close cluster comment commit drop end grant import lock
	notify reassign refresh reindex release revoke rollback savepoint security start truncate unlisten vacuum`)

// grammar are words of SQL and types that a parenthesis may follow without
// anything being called but what is listed here too.
var grammar = set(`
	all analyze and any array as between by case collate cube default distinct else except exists
	explain from group grouping having ilike in intersect is isnull join lateral like limit
	not notnull null offset on only or order returning rollup row select set
	similar some symmetric then to union using values when where window with
	cast coalesce extract greatest least normalize nullif overlay position substring treat trim
	bit char character date dec decimal float int integer interval nchar numeric time timestamp timestamptz timetz
	varbit varchar varying bpchar`)

// definable is what calls functions unseen, or is one, in CREATE and ALTER.
var definable = set(`aggregate cast domain extension function language operator policy procedure routine rule transform trigger type view`)

// functions may be called on any node: built in, immutable or stable, or
// volatile without writing; and aggregates of these.
var functions = set(
	`abs acos acosd acosh asin asind asinh atan atan2 atan2d atand atanh cbrt ceil ceiling cos cosd cosh cot cotd
	 degrees div exp factorial floor gcd lcm ln log log10 min_scale mod pi power pow radians random round scale sign
	 sin sind sinh sqrt tan tand tanh trim_scale trunc width_bucket`,
	`ascii bit_count bit_length btrim char_length character_length chr concat concat_ws convert convert_from convert_to
	 decode encode format get_bit get_byte initcap left length lower lpad ltrim md5 octet_length parse_ident
	 quote_ident quote_literal quote_nullable regexp_count regexp_instr regexp_like regexp_match regexp_matches
	 regexp_replace regexp_split_to_array regexp_split_to_table regexp_substr repeat replace reverse right rpad rtrim
	 set_bit set_byte sha224 sha256 sha384 sha512 split_part starts_with string_to_array string_to_table strpos substr
	 to_ascii to_hex translate unistr upper`,
	`age clock_timestamp current_time current_timestamp localtime localtimestamp date_bin date_part date_trunc isfinite justify_days justify_hours justify_interval make_date
	 make_interval make_time make_timestamp make_timestamptz now statement_timestamp timeofday to_char to_date
	 to_number to_timestamp transaction_timestamp timezone`,
	`array_append array_cat array_dims array_fill array_length array_lower array_ndims array_position array_positions
	 array_prepend array_remove array_replace array_to_string array_upper cardinality trim_array unnest
	 generate_series generate_subscripts num_nonnulls num_nulls`,
	`array_agg avg bit_and bit_or bit_xor bool_and bool_or corr count covar_pop covar_samp every json_agg
	 json_object_agg jsonb_agg jsonb_object_agg max min mode percentile_cont percentile_disc range_agg
	 range_intersect_agg regr_avgx regr_avgy regr_count regr_intercept regr_r2 regr_slope regr_sxx regr_sxy regr_syy
	 stddev stddev_pop stddev_samp string_agg sum var_pop var_samp variance xmlagg any_value`,
	`cume_dist dense_rank first_value lag last_value lead nth_value ntile percent_rank rank row_number`,
	`array_to_json json_array_elements json_array_elements_text json_array_length json_build_array json_build_object
	 json_each json_each_text json_extract_path json_extract_path_text json_object json_object_keys
	 json_populate_record json_populate_recordset json_strip_nulls json_to_record json_to_recordset json_typeof
	 jsonb_array_elements jsonb_array_elements_text jsonb_array_length jsonb_build_array jsonb_build_object jsonb_each
	 jsonb_each_text jsonb_extract_path jsonb_extract_path_text jsonb_insert jsonb_object jsonb_object_keys
	 jsonb_path_exists jsonb_path_match jsonb_path_query jsonb_path_query_array jsonb_path_query_first
	 jsonb_populate_record jsonb_populate_recordset jsonb_pretty jsonb_set jsonb_set_lax jsonb_strip_nulls
	 jsonb_to_record jsonb_to_recordset jsonb_typeof row_to_json to_json to_jsonb`,
	`abbrev broadcast family host hostmask inet_merge inet_same_family masklen netmask network set_masklen`,
	`isempty lower_inc lower_inf upper_inc upper_inf range_merge multirange int4range int8range numrange tsrange
	 tstzrange daterange`,
	`array_to_tsvector numnode phraseto_tsquery plainto_tsquery querytree setweight strip to_tsquery to_tsvector
	 ts_delete ts_filter ts_headline ts_rank ts_rank_cd ts_rewrite tsquery_phrase tsvector_to_array
	 websearch_to_tsquery`,
	`enum_first enum_last enum_range gen_random_uuid area box center circle diagonal diameter height isclosed isopen
	 line lseg npoints path pclose point polygon popen radius slope width`,
	`col_description current_database current_query current_schema current_schemas format_type
	 has_any_column_privilege has_column_privilege has_database_privilege has_function_privilege
	 has_schema_privilege has_sequence_privilege has_table_privilege has_type_privilege obj_description
	 oidvectortypes pg_char_to_encoding pg_client_encoding pg_collation_is_visible pg_column_size
	 pg_conversion_is_visible pg_describe_object pg_encoding_to_char pg_function_is_visible pg_get_constraintdef
	 pg_get_expr pg_get_function_arguments pg_get_function_identity_arguments pg_get_function_result
	 pg_get_functiondef pg_get_indexdef pg_get_keywords pg_get_partition_constraintdef pg_get_partkeydef
	 pg_get_ruledef pg_get_serial_sequence pg_get_statisticsobjdef pg_get_triggerdef pg_get_userbyid
	 pg_get_viewdef pg_has_role pg_opclass_is_visible pg_operator_is_visible pg_opfamily_is_visible
	 pg_relation_is_publishable pg_size_bytes pg_size_pretty pg_statistics_obj_is_visible pg_table_is_visible
	 pg_ts_config_is_visible pg_ts_dict_is_visible pg_ts_parser_is_visible pg_ts_template_is_visible
	 pg_type_is_visible pg_typeof row_security_active shobj_description to_regclass to_regcollation
	 to_regnamespace to_regoper to_regoperator to_regproc to_regprocedure to_regrole to_regtype array_in array_out`,
)

// volatile are built-in functions that belong on the primary and leave nothing
// in the session that a read could notice: those that do something, and those
// that tell of the node or the connection, which is the primary's for whoever asks.
var volatile = set(`currval lastval nextval setval pg_backend_pid pg_sleep pg_sleep_for pg_sleep_until pg_notify
	txid_current txid_current_if_assigned txid_current_snapshot txid_status pg_current_xact_id
	pg_current_xact_id_if_assigned pg_current_snapshot pg_xact_status pg_current_wal_lsn pg_current_wal_insert_lsn
	pg_current_wal_flush_lsn pg_last_wal_replay_lsn pg_last_wal_receive_lsn pg_last_xact_replay_timestamp
	pg_walfile_name pg_wal_lsn_diff pg_switch_wal pg_cancel_backend pg_terminate_backend pg_reload_conf
	pg_postmaster_start_time pg_conf_load_time pg_blocking_pids pg_stat_reset pg_stat_get_activity
	pg_create_restore_point pg_isolation_test_session_is_blocked pg_my_temp_schema pg_is_other_temp_schema
	pg_safe_snapshot_blocking_pids pg_notification_queue_usage pg_listening_channels pg_try_advisory_xact_lock
	pg_advisory_xact_lock pg_advisory_xact_lock_shared pg_try_advisory_xact_lock_shared
	current_setting inet_client_addr inet_client_port inet_server_addr inet_server_port pg_is_in_recovery version
	pg_relation_size pg_table_size pg_total_relation_size pg_indexes_size pg_database_size pg_tablespace_size
	pg_trigger_depth pg_wal_replay_pause pg_wal_replay_resume pg_is_wal_replay_paused`)

// catalogs are PostgreSQL's own relations that read the same on every node. Of
// the other names that begin with pg_ nobody says so.
var catalogs = set(`pg_catalog pg_toast pg_aggregate pg_am pg_amop pg_amproc pg_attrdef pg_attribute pg_auth_members
	pg_authid pg_cast pg_class pg_collation pg_constraint pg_conversion pg_database pg_db_role_setting
	pg_default_acl pg_depend pg_description pg_enum pg_event_trigger pg_extension pg_foreign_data_wrapper
	pg_foreign_server pg_foreign_table pg_group pg_index pg_indexes pg_inherits pg_init_privs pg_language
	pg_largeobject pg_largeobject_metadata pg_matviews pg_namespace pg_opclass pg_operator pg_opfamily
	pg_parameter_acl pg_partitioned_table pg_policies pg_policy pg_proc pg_publication pg_publication_namespace
	pg_publication_rel pg_publication_tables pg_range pg_rewrite pg_roles pg_rules pg_seclabel pg_shdepend
	pg_shdescription pg_statistic pg_statistic_ext pg_statistic_ext_data pg_stats pg_stats_ext pg_subscription
	pg_tables pg_tablespace pg_transform pg_trigger pg_ts_config pg_ts_config_map pg_ts_dict pg_ts_parser
	pg_ts_template pg_type pg_user pg_user_mapping pg_user_mappings pg_views
	pg_default pg_global pg_monitor pg_read_all_data pg_write_all_data`)

// words are those of the lists, each once, but for the first, which stands for all others.
var words = func() []string {
	all := []string{"?"}
	seen := map[string]bool{}
	for _, list := range []map[string]bool{plain, grammar, functions, volatile, catalogs, definable, set(`alter all authorization call do
		characteristics client_min_messages constraint constraints copy create deallocate declare delete discard execute event explain
		false fetch for hold insert into is_called key listen load local log_cnt merge bernoulli conflict filter materialized over sets system tablesample move names no pg_temp pool_nodes prepare procedural
		recursive replace reset role schema session set_config share show table temp temporary time timezone to transaction true trusted update verbose xml
		concurrently database prepared subscription tablespace`)} {
		for w := range list {
			if !seen[w] {
				seen[w] = true
				all = append(all, w)
			}
		}
	}
	return all
}()

const places = 1 << 12

// index finds words: the place is that of hash, or one behind it. 0 is nobody's.
var index = func() (at [places]uint16) {
	for i, w := range words[1:] {
		h := hash([]byte(w))
		for at[h%places] != 0 {
			h++
		}
		at[h%places] = uint16(i + 1)
	}
	return at
}()

// hash is the same in upper and in lower case.
func hash(w []byte) uint32 {
	n := len(w)
	h := uint32(w[0]|0x20) | uint32(w[n/2]|0x20)<<8 | uint32(w[n-1]|0x20)<<16 | uint32(n)<<24
	return h * 0x9e3779b1 >> 20
}

// listed is the place of a word in words, in any case; 0: it is none of the lists.
func listed(w []byte) int {
	for h := hash(w); ; h++ {
		i := int(index[h%places])
		if i == 0 || alike(w, words[i]) {
			return i
		}
	}
}

// alike says whether w is low, in any case.
func alike(w []byte, low string) bool {
	if len(w) != len(low) {
		return false
	}
	for i, c := range w {
		if lower[c] != low[i] {
			return false
		}
	}
	return true
}

// lower are the bytes in lower case, as PostgreSQL has it for keywords.
var lower = func() (to [256]byte) {
	for c := range to {
		if to[c] = byte(c); c >= 'A' && c <= 'Z' {
			to[c] += 'a' - 'A'
		}
	}
	return to
}()
