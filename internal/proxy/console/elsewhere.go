package console

import (
	"strconv"
	"strings"
	"time"

	"manada/internal/proxy/wire"
)

// keys are PgBouncer's names of settings that there are here, under ours.
var keys = [][2]string{
	{"client_idle_timeout", "proxy.client_idle_timeout"}, {"client_login_timeout", "proxy.login_timeout"}, {"default_pool_size", "proxy.pool.size"},
	{"idle_transaction_timeout", "proxy.idle_transaction_timeout"}, {"listen_addr", "listen"}, {"listen_port", "ports.sql"},
	{"max_client_conn", "proxy.max_clients"}, {"min_pool_size", "proxy.pool.min"}, {"pool_mode", "proxy.pool.mode"},
	{"query_timeout", "proxy.query_timeout"}, {"query_wait_timeout", "proxy.pool.queue_timeout"}, {"reserve_pool_size", "proxy.pool.reserve"},
	{"reserve_pool_timeout", "proxy.pool.reserve_timeout"}, {"server_connect_timeout", "proxy.connect_timeout"},
	{"server_idle_timeout", "proxy.pool.idle_timeout"}, {"server_lifetime", "proxy.pool.lifetime"}, {"transaction_timeout", "proxy.transaction_timeout"},
}

// config shows the settings, under our names and behind them under those by which
// monitoring looks for them, times in seconds.
func config(s *Source) (out []row) {
	add := func(key string, k Setting, as func(string) string) {
		changeable := "yes"
		if k.AtStart {
			changeable = "no"
		}
		out = append(out, row{key, as(k.Value), as(k.Default), changeable})
	}
	all := s.Config()
	for _, k := range all {
		add(k.Key, k, func(v string) string { return v })
	}
	for _, name := range keys {
		for _, k := range all {
			if k.Key == name[1] && k.Value == "0" && name[0] == "default_pool_size" && s.PoolSize != nil { // as many as the node may have
				k.Value = strconv.Itoa(s.PoolSize())
			}
			if k.Key == name[1] {
				add(name[0], k, inSeconds)
			}
		}
	}
	return out
}

// inSeconds is a value as PgBouncer writes it.
func inSeconds(v string) string {
	if d, err := time.ParseDuration(v); err == nil {
		return strconv.FormatFloat(d.Seconds(), 'f', -1, 64)
	}
	return v
}

// instead says for what PgBouncer has, or had, and there is not here, why, and what to
// use.
var instead = map[string][2]string{
	"SHOW SOCKETS":        {"the console does not show buffers of sockets", "SHOW CLIENTS and SHOW SERVERS show the connections."},
	"SHOW ACTIVE_SOCKETS": {"the console does not show buffers of sockets", "SHOW CLIENTS and SHOW SERVERS show the connections."},
	"SHOW FDS":            {"the console gives no file descriptors away", "SHOW CLIENTS and SHOW SERVERS show the connections; a new release is installed host by host, with  manada switchover."},
	"SHOW MEM":            {"the proxy has no caches of fixed sizes", "Metrics of the proxy's HTTP port say what it uses: process_resident_memory_bytes, go_memstats_*."},
	"SHOW DNS_HOSTS":      {"the proxy looks up no names", "The hosts of the herd tell their addresses: SHOW DATABASES, or  manada status."},
	"SHOW DNS_ZONES":      {"the proxy looks up no names", "The hosts of the herd tell their addresses: SHOW DATABASES, or  manada status."},
	"SHOW PEERS":          {"proxies need no list of each other", "manada proxy show clients --herd  shows what all of them have."},
	"SHOW PEER_POOLS":     {"proxies need no list of each other", "manada proxy show pools --herd  shows the pools of all of them."},
	"SUSPEND":             {"the proxy is not suspended for a new process to take over", "PAUSE holds clients; a new release is installed host by host, with  manada switchover."},
	"SHUTDOWN":            {"the proxy is stopped with its host", "systemctl stop manada  ends it; PAUSE lets what is under way end first."},
}

// elsewhere is what to do instead of a command of PgBouncer's; nil: it is none.
func elsewhere(s *Source, list []string) *wire.Error {
	word := strings.ToUpper(list[0])
	if word == "SHOW" && len(list) == 2 {
		word += " " + strings.ToUpper(list[1])
	}
	if word == "SET" && len(list) > 1 {
		return noSet(s, list[1])
	}
	why, ok := instead[word]
	if !ok {
		return nil
	}
	return &wire.Error{Severity: "ERROR", Code: "0A000", Message: word + ": " + why[0], Hint: why[1]}
}

// noSet says where a setting is changed.
func noSet(s *Source, name string) *wire.Error {
	name, _, _ = strings.Cut(strings.ToLower(name), "=")
	e := &wire.Error{Severity: "ERROR", Code: "0A000", Message: "settings are changed in the host's file, not with SET",
		Hint: "SHOW CONFIG lists them; RELOAD has the file read again."}
	if s.Config == nil {
		return e
	}
	for _, k := range keys {
		if k[0] == name {
			name = k[1]
		}
	}
	for _, k := range s.Config() {
		if k.Key == name {
			e.Hint = "Change " + name + " in the host's file; RELOAD has it read again."
		}
	}
	return e
}
