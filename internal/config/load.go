package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"manada/internal/cluster"
)

// Load reads the file, lays the environment over it ("NAME=value" as of
// os.Environ), fills in the defaults and checks keys and values. It does not
// look at the machine: see Check. The error is of type Problems when the
// contents are at fault.
func Load(file string, environ []string) (*Config, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	return Parse(file, data, environ)
}

// Parse is Load for contents that were read already; file is for messages and
// for paths relative to it. With an error of type Problems the configuration is
// what could be read: enough for commands that only ask, and for nothing else.
func Parse(file string, data []byte, environ []string) (*Config, error) {
	c := defaults()
	c.File, c.Origins = file, map[string]Origin{}
	r := &reader{cfg: c, file: file, leaves: map[string]leaf{}}
	for _, l := range leaves(c) {
		r.leaves[l.path] = l
		r.order = append(r.order, l.path)
		c.Origins[l.path] = Origin{Source: "default"}
	}
	broken := !r.readFile(data)
	if broken {
		r.salvage(data)
	}
	r.readEnv(environ)
	c.absolutePaths()
	c.derive()
	if !broken { // else everything would seem to be missing
		r.problems = append(r.problems, c.validate()...)
	}
	c.Warnings = r.warnings
	if err := r.problems.OrNil(); err != nil {
		return c, err
	}
	return c, nil
}

type reader struct {
	cfg      *Config
	file     string
	leaves   map[string]leaf
	order    []string
	problems Problems
	warnings []Problem
}

func (r *reader) fail(line int, key, what, want, hint string) {
	r.problems = append(r.problems, Problem{where(r.file, line), key, what, want, hint})
}

func where(file string, line int) string {
	if line == 0 {
		return file
	}
	return file + ":" + strconv.Itoa(line)
}

var yamlLine = regexp.MustCompile(`^yaml: line (\d+): (.*)$`)

// readFile says whether the file is YAML at all.
func (r *reader) readFile(data []byte) bool {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	err := dec.Decode(&doc)
	if errors.Is(err, io.EOF) {
		return true // an empty file: what is required is reported as missing
	}
	if err != nil {
		line, what := 0, strings.TrimPrefix(err.Error(), "yaml: ")
		if m := yamlLine.FindStringSubmatch(err.Error()); m != nil {
			line, _ = strconv.Atoi(m[1])
			what = m[2]
		}
		r.fail(line, "", "not valid YAML: "+what, "", "indent with spaces, never with tabs, and quote values that hold \": \" or \" #\"")
		return false
	}
	var second yaml.Node
	if err := dec.Decode(&second); err == nil {
		r.fail(second.Line, "", "a second document begins here", "one document", "")
	}
	if len(doc.Content) == 1 {
		r.section(doc.Content[0], "")
	}
	return true
}

var dataDirLine = regexp.MustCompile(`(?m)^data_dir:[ \t]*["']?([^"'#\s]+)`)

// salvage finds, in a file that is no YAML, where the host keeps its identity.
func (r *reader) salvage(data []byte) {
	if m := dataDirLine.FindSubmatch(data); m != nil {
		r.cfg.DataDir = string(m[1])
	}
}

// section reads a mapping whose keys stand below prefix ("" or "timing.").
func (r *reader) section(n *yaml.Node, prefix string) {
	n = resolve(n)
	if isNull(n) {
		return
	}
	if n.Kind != yaml.MappingNode {
		r.fail(n.Line, strings.TrimSuffix(prefix, "."), describe(n), "a section with keys: "+strings.Join(r.keys(prefix), ", "), "")
		return
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		path := prefix + k.Value
		if line, dup := seen[k.Value]; dup {
			r.fail(k.Line, path, fmt.Sprintf("given twice, first in line %d", line), "", "")
			continue
		}
		seen[k.Value] = k.Line
		r.key(k, v, prefix, path)
	}
}

func (r *reader) key(k, v *yaml.Node, prefix, path string) {
	if l, ok := r.leaves[path]; ok {
		r.leaf(l, v)
		return
	}
	if len(r.keys(path+".")) > 0 {
		r.section(v, path+".")
		return
	}
	what := "unknown key" + didYouMean(k.Value, r.keys(prefix))
	hint := ""
	if n := Nearest(k.Value, r.keys(prefix)); n == "" {
		hint = r.elsewhere(k.Value)
	}
	if hint == "" {
		hint = "keys here: " + strings.Join(r.keys(prefix), ", ")
	}
	r.fail(k.Line, path, what, "", hint)
}

// elsewhere says where a key that is known in another section belongs.
func (r *reader) elsewhere(key string) string {
	for _, p := range r.order {
		if strings.HasSuffix(p, "."+key) {
			return "there is " + p + ": indent it below " + strings.TrimSuffix(p, "."+key) + ":"
		}
	}
	return ""
}

// keys lists the keys directly below prefix.
func (r *reader) keys(prefix string) []string {
	var ks []string
	for _, p := range r.order {
		rest, ok := strings.CutPrefix(p, prefix)
		if !ok {
			continue
		}
		k, _, _ := strings.Cut(rest, ".")
		if !contains(ks, k) {
			ks = append(ks, k)
		}
	}
	return ks
}

func (r *reader) leaf(l leaf, n *yaml.Node) {
	n = resolve(n)
	if isNull(n) {
		return
	}
	bad := func(at *yaml.Node, what string) { r.fail(at.Line, l.path, what, l.want(), "") }
	switch l.value.Interface().(type) {
	case []string:
		r.list(l, n, bad)
	case map[string]string:
		r.mapping(l, n, bad)
	case []cluster.Replicator:
		r.replicators(l, n, bad)
	default:
		if n.Kind != yaml.ScalarNode {
			bad(n, describe(n))
			return
		}
		if err := l.setText(n.Value); err != nil {
			bad(n, err.Error())
		}
	}
	r.cfg.Origins[l.path] = Origin{Source: "file", Line: n.Line}
}

func (r *reader) list(l leaf, n *yaml.Node, bad func(*yaml.Node, string)) {
	items := []*yaml.Node{n} // a single value stands for a list of one
	if n.Kind == yaml.SequenceNode {
		items = n.Content
	}
	list := make([]string, 0, len(items))
	for _, e := range items {
		if e = resolve(e); e.Kind != yaml.ScalarNode || isNull(e) {
			bad(e, describe(e))
			return
		}
		list = append(list, e.Value)
	}
	l.value.Set(reflect.ValueOf(list))
	if err := l.check(); err != nil {
		bad(n, err.Error())
	}
}

func (r *reader) mapping(l leaf, n *yaml.Node, bad func(*yaml.Node, string)) {
	if n.Kind != yaml.MappingNode {
		bad(n, describe(n))
		return
	}
	m := map[string]string{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i].Value, resolve(n.Content[i+1])
		if v.Kind != yaml.ScalarNode || isNull(v) {
			r.fail(v.Line, l.path+"."+k, describe(v), "a value", "")
			continue
		}
		if _, dup := m[k]; dup {
			r.fail(v.Line, l.path+"."+k, "given twice", "", "")
		}
		m[k] = v.Value
		r.cfg.Origins[l.path+"."+k] = Origin{Source: "file", Line: n.Content[i].Line}
	}
	l.value.Set(reflect.ValueOf(m))
}

func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "is a section"
	case yaml.SequenceNode:
		return "is a list"
	}
	if isNull(n) {
		return "is empty"
	}
	return fmt.Sprintf("%q is a single value", n.Value)
}

// absolutePaths makes paths relative to the file's own folder.
func (c *Config) absolutePaths() {
	base, err := filepath.Abs(filepath.Dir(c.File))
	if err != nil {
		return
	}
	for _, l := range leaves(c) {
		if l.tag.Get("path") == "" || l.value.String() == "" {
			continue
		}
		p := l.value.String()
		if !filepath.IsAbs(p) {
			p = filepath.Join(base, p)
		}
		l.value.SetString(filepath.Clean(p))
	}
}
