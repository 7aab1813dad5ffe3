package conv

import "bytes"

// Plans counts the changes of a database behind which a statement may have other
// columns than when it was prepared. PostgreSQL refuses to execute such a plan; one
// that was prepared since is another one. It is as safe for concurrent use as what it
// counts with.
type Plans struct{ changes Counter }

// Counter counts; *atomic.Uint64 does for several loops.
type Counter interface {
	Add(n uint64) uint64
	Load() uint64
}

// NewPlans counts with c.
func NewPlans(c Counter) *Plans { return &Plans{c} }

// alone counts for one client.
type alone uint64

func (a *alone) Add(n uint64) uint64 {
	*a += alone(n)
	return a.Load()
}

func (a *alone) Load() uint64 { return uint64(*a) }

// now is how many there were.
func (p *Plans) now() uint64 {
	if p == nil {
		return 0
	}
	return p.changes.Load()
}

var (
	tagAlter   = []byte("ALTER ")
	staleCode  = []byte("\x00C0A000\x00")
	staleWhere = []byte("\x00RRevalidateCachedQuery\x00")
)

// altered notes the tag of a command.
func (p *Plans) altered(tag []byte) {
	if p != nil && bytes.HasPrefix(tag, tagAlter) {
		p.changes.Add(1)
	}
}

// failed notes an error: whoever prepares the statement again has it anew. Its text is
// translated, where it comes from is not.
func (p *Plans) failed(body []byte) {
	if p != nil && bytes.Contains(body, staleCode) && bytes.Contains(body, staleWhere) {
		p.changes.Add(1)
	}
}
