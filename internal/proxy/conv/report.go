package conv

import (
	"hash/maphash"
	"maps"
	"slices"
	"strings"

	"manada/internal/proxy/classify"
	"manada/internal/proxy/wire"
)

// Report is what a server has reported of its settings. It does not change: links
// and clients share it.
type Report = report

type report struct {
	values map[string]string
	sum    uint64 // the same for the same values
	fold   string // of those that parsing folds into a plan
	odd    string // why texts are not understood under them; "": they are
}

var seed = maphash.MakeSeed()

// NewReport is of these values, which must not be changed any more.
func NewReport(values map[string]string) *Report {
	r := &report{values: values}
	var fold strings.Builder
	for _, name := range slices.Sorted(maps.Keys(values)) {
		r.sum ^= maphash.String(seed, name+"="+values[name])
		if slices.Contains(folds, strings.ToLower(name)) {
			fold.WriteString(values[name] + "\x00")
		}
	}
	r.fold = fold.String()
	switch encoding, ok := values["client_encoding"]; {
	case ok && !classify.Encoding(encoding):
		r.odd = "an encoding that is not understood"
	case values["standard_conforming_strings"] == "off":
		r.odd = "strings that are not understood"
	}
	return r
}

// with is r with one value more.
func (r *report) with(name, value string) *report {
	values := maps.Clone(r.values)
	if values == nil {
		values = map[string]string{}
	}
	values[name] = value
	return NewReport(values)
}

// Shown tells what the client was told of settings at its log-in: it hears of the
// difference when a server's are others.
func (c *Conv) Shown(reported *Report) { c.shown, c.begun = reported, reported }

// show tells the client in what settings differ from those that it was told.
func (c *Conv) show(now *report, fx *Effects) {
	if c.shown == now {
		return
	}
	if c.shown != nil && c.shown.sum != now.sum {
		at := len(fx.own)
		for _, name := range slices.SortedFunc(maps.Keys(now.values), byName) {
			if value := now.values[name]; c.shown.values[name] != value {
				fx.own = wire.AppendParameterStatus(fx.own, name, value)
			}
		}
		if len(fx.own) > at {
			fx.add(Effect{Kind: Send, Side: Client, B: fx.own[at:]})
		}
	}
	c.shown = now
}

// byName is PostgreSQL's order of settings.
func byName(a, b string) int { return strings.Compare(strings.ToLower(a), strings.ToLower(b)) }

// clears says whether an entry is of a DISCARD ALL behind which the client has what it
// began with, which its server has not: what that reports is neither's.
func (c *Conv) clears(e *entry) bool {
	return e.kind == query && !e.ours && e.note != nil && e.note.about.Kind == classify.Discard && len(c.set.first) > 0 && c.begun != nil
}
