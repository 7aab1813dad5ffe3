package config

import (
	"slices"
	"strings"
)

// Changes are the keys in which two configurations differ, in the order of the file.
func Changes(was, is *Config) (keys []string) {
	old := map[string]string{}
	for _, s := range was.Settings() {
		old[s.Key] = s.Value
	}
	for _, s := range is.Settings() {
		if v, there := old[s.Key]; !there || v != s.Value {
			keys = append(keys, s.Key)
		}
		delete(old, s.Key)
	}
	for _, s := range was.Settings() { // what is not there any more
		if _, there := old[s.Key]; there {
			keys = append(keys, s.Key)
		}
	}
	return keys
}

// OnlyAtStart says whether what a host runs for a role reads a key when it starts and at
// no other time. The agent is started again by a reload, so of a database nothing is.
func OnlyAtStart(role Role, key string) bool {
	if slices.Contains([]string{"cluster", "node", "roles", "listen", "advertise", "run_dir"}, key) || strings.HasPrefix(key, "log.") {
		return true
	}
	switch role {
	case ProxyRole:
		return slices.Contains([]string{"ports.sql", "ports.read_only", "ports.proxy_http", "ports.peer", "http.access", "timing.suspect_after"}, key)
	case Store:
		return strings.HasPrefix(key, "ports.store_")
	case Repository:
		return key == "ports.backup" || key == "http.access" || strings.HasPrefix(key, "backup.")
	}
	return false
}
