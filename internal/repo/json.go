package repo

import (
	"maps"
	"slices"
	"strconv"
)

// object builds a JSON object without spaces; keys must come in ascending order,
// as pgBackRest's reader only ever looks forward.
type object struct{ b []byte }

func (o *object) key(k string) {
	if len(o.b) == 0 {
		o.b = append(o.b, '{')
	} else {
		o.b = append(o.b, ',')
	}
	o.b = append(append(append(o.b, '"'), k...), '"', ':')
}

func (o *object) string(k, v string)     { o.key(k); o.b = appendString(o.b, v) }
func (o *object) int(k string, v int64)  { o.key(k); o.b = strconv.AppendInt(o.b, v, 10) }
func (o *object) bool(k string, v bool)  { o.key(k); o.b = strconv.AppendBool(o.b, v) }
func (o *object) raw(k string, v []byte) { o.key(k); o.b = append(o.b, v...) }

func (o *object) end() []byte {
	if len(o.b) == 0 {
		return []byte("{}")
	}
	return append(o.b, '}')
}

func renderMap(m map[string]string) []byte {
	b := []byte("{")
	for i, k := range slices.Sorted(maps.Keys(m)) {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendString(b, k), ':')
		b = appendString(b, m[k])
	}
	return append(b, '}')
}
