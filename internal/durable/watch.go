package durable

import (
	"slices"
	"sync/atomic"
)

// Op is one thing that was done to a disk.
type Op struct {
	Kind OpKind
	Path string
	To   string // of a rename: the new name; of a symbolic link: where it leads
	Data []byte // of a write
}

// OpKind is a kind of Op.
type OpKind int

const (
	OpCreate  OpKind = iota // an empty file
	OpWrite                 // more content at its end
	OpSync                  // its content is on the disk
	OpRename                // in place of what was there
	OpSymlink               // a symbolic link
	OpRemove                // of a file, or of a folder with all in it
	OpMkdir                 // an empty folder
	OpSyncDir               // the names in a folder are on the disk
)

var watcher atomic.Pointer[func(Op)]

// Watch tells f of all that is done through this package, in order, until stop
// is called. For tests, one at a time.
func Watch(f func(Op)) (stop func()) {
	if !watcher.CompareAndSwap(nil, &f) {
		panic("durable: watched already")
	}
	return func() { watcher.Store(nil) }
}

func told(op Op) {
	if f := watcher.Load(); f != nil {
		op.Data = slices.Clone(op.Data)
		(*f)(op)
	}
}
