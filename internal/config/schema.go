package config

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"manada/internal/cluster"
)

// Size is a number of bytes, written "64MB" (powers of 1024, as in PostgreSQL).
type Size int64

var units = []struct {
	name string
	size int64
}{{"TB", 1 << 40}, {"GB", 1 << 30}, {"MB", 1 << 20}, {"kB", 1 << 10}, {"B", 1}}

// ParseSize reads "64MB"; the units are B, kB, MB, GB and TB.
func ParseSize(s string) (Size, error) {
	for _, u := range units {
		num, ok := cutSuffixFold(s, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(num), 10, 64)
		if err != nil || n < 0 || n > (1<<62)/u.size {
			break
		}
		return Size(n * u.size), nil
	}
	return 0, fmt.Errorf("%q is no size", s)
}

func cutSuffixFold(s, suffix string) (string, bool) {
	if len(s) > len(suffix) && strings.EqualFold(s[len(s)-len(suffix):], suffix) {
		return s[:len(s)-len(suffix)], true
	}
	return s, false
}

// String writes the size with the largest unit that divides it.
func (s Size) String() string {
	for _, u := range units {
		if int64(s) >= u.size && int64(s)%u.size == 0 {
			return strconv.FormatInt(int64(s)/u.size, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10) + "B"
}

// leaf is one key that holds a value.
type leaf struct {
	path  string // "timing.beat"
	value reflect.Value
	tag   reflect.StructTag
}

// leaves lists every key of c in the order of the declaration.
func leaves(c *Config) []leaf {
	var all []leaf
	var walk func(v reflect.Value, prefix string)
	walk = func(v reflect.Value, prefix string) {
		for i := range v.NumField() {
			f := v.Type().Field(i)
			key := f.Tag.Get("key")
			if key == "-" {
				continue
			}
			if f.Type.Kind() == reflect.Struct {
				walk(v.Field(i), prefix+key+".")
				continue
			}
			all = append(all, leaf{prefix + key, v.Field(i), f.Tag})
		}
	}
	walk(reflect.ValueOf(c).Elem(), "")
	return all
}

// want says in words what a leaf takes.
func (l leaf) want() string {
	if e := l.tag.Get("enum"); e != "" {
		words := "one of " + strings.Join(strings.Split(e, ","), ", ")
		if l.value.Kind() == reflect.Slice {
			return "a list of: " + strings.Join(strings.Split(e, ","), ", ")
		}
		return words
	}
	bounds := ""
	if l.tag.Get("min") != "" {
		bounds = " from " + l.tag.Get("min") + " to " + l.tag.Get("max")
	}
	switch l.value.Interface().(type) {
	case time.Duration:
		return "a duration such as 500ms or 2s" + bounds
	case Size:
		return "a size such as 64MB" + bounds
	case int:
		return "a whole number" + bounds
	case bool:
		return "true or false"
	case []string:
		return "a list"
	case map[string]string:
		return "a mapping of names to values"
	case []cluster.Replicator:
		return "a list of {role: NAME, from: ADDRESSES, databases: NAMES}"
	}
	if l.tag.Get("path") != "" {
		return "a path"
	}
	return "a text"
}

// setText sets a leaf from a scalar, of the file or of the environment. A list
// is written with commas. The message says what is wrong; want() what is
// right.
func (l leaf) setText(s string) error {
	switch l.value.Interface().(type) {
	case time.Duration:
		d, err := time.ParseDuration(s)
		if err != nil {
			return fmt.Errorf("%q is no duration", s)
		}
		l.value.SetInt(int64(d))
	case Size:
		n, err := ParseSize(s)
		if err != nil {
			return err
		}
		l.value.SetInt(int64(n))
	case int:
		n, err := strconv.Atoi(s)
		if err != nil {
			return fmt.Errorf("%q is no whole number", s)
		}
		l.value.SetInt(int64(n))
	case bool:
		b, err := strconv.ParseBool(s)
		if err != nil {
			return fmt.Errorf("%q is neither true nor false", s)
		}
		l.value.SetBool(b)
	case []string:
		var list []string
		for _, e := range strings.Split(s, ",") {
			if e = strings.TrimSpace(e); e != "" {
				list = append(list, e)
			}
		}
		l.value.Set(reflect.ValueOf(list))
	case map[string]string, []cluster.Replicator:
		return fmt.Errorf("%q is a single value", s)
	default:
		l.value.SetString(s)
	}
	return l.check()
}

// check holds a leaf against its bounds.
func (l leaf) check() error {
	if e := l.tag.Get("enum"); e != "" {
		allowed := strings.Split(e, ",")
		for _, s := range l.texts() {
			if !contains(allowed, s) {
				return fmt.Errorf("%q is not allowed%s", s, didYouMean(s, allowed))
			}
		}
	}
	if l.tag.Get("min") == "" {
		return nil
	}
	n, lo, hi := l.value.Int(), l.bound("min"), l.bound("max")
	if n < lo || n > hi {
		return fmt.Errorf("%s is out of range", l.Text())
	}
	return nil
}

func (l leaf) bound(which string) int64 {
	b := reflect.New(l.value.Type()).Elem()
	if err := (leaf{l.path, b, ""}).setText(l.tag.Get(which)); err != nil {
		panic(fmt.Sprintf("config: bad tag %s of %s: %v", which, l.path, err))
	}
	return b.Int()
}

func (l leaf) texts() []string {
	if s, ok := l.value.Interface().([]string); ok {
		return s
	}
	return []string{l.value.String()}
}

// Text is the value as the file would have it.
func (l leaf) Text() string {
	switch v := l.value.Interface().(type) {
	case time.Duration:
		return shortDuration(v)
	case []string:
		return strings.Join(v, ", ")
	case []cluster.Replicator:
		return replicatorsText(v)
	default:
		return fmt.Sprint(v)
	}
}

// shortDuration is d.String() without zero parts at its end: 1m0s is 1m.
func shortDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
