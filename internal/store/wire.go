package store

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// txnRequest renders a transaction for etcd. Reads in it are linearizable.
func txnRequest(t txn) *pb.TxnRequest {
	return &pb.TxnRequest{Compare: wireCompares(t.cmps), Success: wireOps(t.then), Failure: wireOps(t.els)}
}

func wireCompares(cs []compare) []*pb.Compare {
	out := make([]*pb.Compare, 0, len(cs))
	for _, c := range cs {
		w := &pb.Compare{Key: []byte(c.key), Target: pb.Compare_MOD, Result: pb.Compare_EQUAL}
		switch {
		case c.byValue:
			w.Target, w.TargetUnion = pb.Compare_VALUE, &pb.Compare_Value{Value: []byte(c.value)}
		case c.exists:
			w.Result, w.TargetUnion = pb.Compare_GREATER, &pb.Compare_ModRevision{ModRevision: 0}
		default:
			w.TargetUnion = &pb.Compare_ModRevision{ModRevision: c.rev}
		}
		out = append(out, w)
	}
	return out
}

func wireOps(ops []op) []*pb.RequestOp {
	out := make([]*pb.RequestOp, 0, len(ops))
	for _, o := range ops {
		w := new(pb.RequestOp)
		switch o.kind {
		case opPut:
			w.Request = &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(o.key), Value: o.value}}
		case opDelete:
			w.Request = &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte(o.key)}}
		default:
			w.Request = &pb.RequestOp_RequestRange{RequestRange: wireRange(o)}
		}
		out = append(out, w)
	}
	return out
}

func wireRange(o op) *pb.RangeRequest {
	r := &pb.RangeRequest{Key: []byte(o.key), Serializable: o.stale}
	if !o.prefix {
		return r
	}
	r.RangeEnd = []byte(clientv3.GetPrefixRangeEnd(o.key))
	r.Limit = o.limit
	if o.from != "" {
		r.Key = []byte(o.from)
	}
	r.SortTarget, r.SortOrder = pb.RangeRequest_KEY, pb.RangeRequest_ASCEND
	if o.newestFirst {
		r.SortOrder = pb.RangeRequest_DESCEND
	}
	return r
}
