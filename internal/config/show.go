package config

import (
	"reflect"
	"slices"
	"strings"
)

// Setting is one key with its value and where that came from.
type Setting struct {
	Key    string `json:"key"`
	Value  string `json:"value"`
	Origin Origin `json:"origin"`
}

// Settings lists every key in the order of the file, parameters of PostgreSQL
// by name.
func (c *Config) Settings() []Setting {
	var all []Setting
	for _, l := range leaves(c) {
		m, ok := l.value.Interface().(map[string]string)
		if !ok {
			all = append(all, Setting{l.path, l.Text(), c.origin(l)})
			continue
		}
		names := make([]string, 0, len(m))
		for n := range m {
			names = append(names, n)
		}
		slices.Sort(names)
		for _, n := range names {
			key := l.path + "." + n
			all = append(all, Setting{key, m[n], c.Origins[key]})
		}
	}
	return all
}

// origin tells a derived or found value from a plain default.
func (c *Config) origin(l leaf) Origin {
	o := c.Origins[l.path]
	if l.path == "postgresql.bin_dir" && o.Source == "default" && l.value.String() != "" {
		o.Source = "found"
	}
	return o
}

// Keys lists every key, for completion and the reference.
func Keys() []string {
	var ks []string
	for _, l := range leaves(defaults()) {
		ks = append(ks, l.path)
	}
	return ks
}

// Default is a key's value when nothing was set; empty when it has none.
func Default(key string) string {
	for _, l := range leaves(defaults()) {
		if l.path == key && l.value.Kind() != reflect.Map {
			return l.Text()
		}
	}
	return ""
}

// Explain says what a key takes, with its default: "a duration such as 500ms or
// 2s from 20ms to 10s; default 100ms".
func Explain(key string) string {
	for _, l := range leaves(defaults()) {
		if l.path != key {
			continue
		}
		s := l.want()
		if d := l.Text(); d != "" && d != "map[]" && !strings.HasPrefix(d, "0") {
			s += "; default " + d
		}
		return s
	}
	return ""
}
