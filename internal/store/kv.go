package store

import (
	"context"
	"time"
)

// kv is what the typed calls need of a backend: one atomic transaction on a
// key-value map with revisions, as etcd has it.
type kv interface {
	// do runs the transaction at most once. Its error wraps ErrUnknown,
	// ErrUnreachable or ErrRefused. A failed comparison is no error.
	do(ctx context.Context, t txn) (txnResult, error)
	// bell calls ring after changes under the prefix since the revision (0: from
	// now on), until the context ends or the stream breaks. Rings may be lost:
	// the caller re-reads from time to time.
	bell(ctx context.Context, prefix string, since int64, ring func(key string)) error
	status(ctx context.Context) (Status, error)
	close() error
}

// txn runs then if every comparison holds, els otherwise.
type txn struct {
	name string // what it is for, in errors and for fault injection
	cmps []compare
	then []op
	els  []op
}

func (t txn) readOnly() bool {
	for _, o := range append(t.then[:len(t.then):len(t.then)], t.els...) {
		if o.kind != opGet {
			return false
		}
	}
	return true
}

// compare is a condition on one key: its modification revision is rev (0: the
// key is absent), or its value is value, or it exists.
type compare struct {
	key     string
	rev     int64
	byValue bool
	value   string
	exists  bool
}

func revIs(key string, rev int64) compare    { return compare{key: key, rev: rev} }
func absent(key string) compare              { return compare{key: key} }
func valueIs(key string, val string) compare { return compare{key: key, byValue: true, value: val} }

type opKind int

const (
	opGet opKind = iota
	opPut
	opDelete
)

// op reads, writes or removes. A get with prefix returns all keys below, in
// ascending order or newestFirst, and no more than limit (0: all).
type op struct {
	kind        opKind
	key         string
	prefix      bool
	newestFirst bool
	from        string // of a prefix, only keys from this one on
	stale       bool   // may be answered by a member that is a little behind
	limit       int64
	value       []byte
}

func get(key string) op     { return op{kind: opGet, key: key} }
func list(prefix string) op { return op{kind: opGet, key: prefix, prefix: true} }
func last(prefix string, n int64) op {
	return op{kind: opGet, key: prefix, prefix: true, newestFirst: true, limit: n}
}
func since(prefix, from string, n int64) op {
	return op{kind: opGet, key: prefix, prefix: true, newestFirst: true, limit: n, from: from, stale: true}
}
func put(key string, value []byte) op { return op{kind: opPut, key: key, value: value} }
func del(key string) op               { return op{kind: opDelete, key: key} }

// pair is a key as read.
type pair struct {
	key   string
	value []byte
	rev   int64 // modification revision
}

// txnResult: gets holds one entry per operation of the branch that ran, empty
// for writes and missing keys.
type txnResult struct {
	ok      bool
	rev     int64 // the store's revision after the transaction
	storeID uint64
	gets    [][]pair
	sent    time.Time
	got     time.Time // when the answer arrived
}

// one returns the only pair of the i-th operation.
func (r txnResult) one(i int) (pair, bool) {
	if i >= len(r.gets) || len(r.gets[i]) == 0 {
		return pair{}, false
	}
	return r.gets[i][0], true
}
