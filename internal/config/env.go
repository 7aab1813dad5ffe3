package config

import (
	"maps"
	"reflect"
	"slices"
	"strings"
)

// EnvPrefix begins every variable that overrides a key. An empty one counts as
// not set, as container platforms cannot unset.
const EnvPrefix = "MANADA_"

// notKeys are variables of ours that are no override of a key.
var notKeys = []string{"MANADA_CONFIG", "MANADA_FOREGROUND", "MANADA_PUBLISHED", "MANADA_RUN_ID"}

// EnvName is the variable that overrides a key.
func EnvName(path string) string {
	return EnvPrefix + strings.ToUpper(strings.ReplaceAll(path, ".", "_"))
}

const parametersKey = "postgresql.parameters"

func (r *reader) readEnv(environ []string) {
	names := map[string]string{} // variable -> path
	var known []string
	for _, p := range r.order {
		names[EnvName(p)] = p
		known = append(known, EnvName(p))
	}
	environ = slices.Clone(environ)
	slices.Sort(environ)
	for _, e := range environ {
		name, value, _ := strings.Cut(e, "=")
		if !strings.HasPrefix(name, EnvPrefix) || contains(notKeys, name) || value == "" {
			continue
		}
		if r.entryFromEnv(name, value) {
			continue
		}
		path, ok := names[name]
		if !ok {
			// Only a warning: container platforms put variables of this form
			// (MANADA_PORT, MANADA_SERVICE_HOST) beside a service of our name.
			r.warnings = append(r.warnings, Problem{Where: "$" + name,
				What: "names no configuration key" + didYouMean(name, known)})
			continue
		}
		l := r.leaves[path]
		if err := l.setText(value); err != nil {
			r.problems = append(r.problems, Problem{Where: "$" + name, Key: path, What: err.Error(), Want: l.want()})
		}
		r.cfg.Origins[path] = Origin{Source: "env", Env: name}
	}
}

// entryFromEnv sets one entry of a mapping: its name is what follows the key's
// variable, as in MANADA_POSTGRESQL_PARAMETERS_WORK_MEM.
func (r *reader) entryFromEnv(name, value string) bool {
	for _, path := range r.order {
		entry, ok := strings.CutPrefix(name, EnvName(path)+"_")
		if !ok || entry == "" {
			continue
		}
		l := r.leaves[path]
		old, ok := l.value.Interface().(map[string]string)
		if !ok {
			continue
		}
		m := maps.Clone(old)
		if m == nil {
			m = map[string]string{}
		}
		entry = strings.ToLower(entry)
		m[entry] = value
		l.value.Set(reflect.ValueOf(m))
		r.cfg.Origins[path+"."+entry] = Origin{Source: "env", Env: name}
		return true
	}
	return false
}
