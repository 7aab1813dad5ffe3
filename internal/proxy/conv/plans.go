package conv

import (
	"bytes"
	"sync/atomic"
)

// Plans counts the changes of a database behind which a statement may have other
// columns than when it was prepared. PostgreSQL refuses to execute such a plan; one
// that was prepared since is another one. Safe for concurrent use.
type Plans struct{ changes atomic.Uint64 }

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
