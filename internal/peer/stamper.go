package peer

import (
	"crypto/rand"
	"encoding/hex"
	"sync"

	"manada/internal/cluster"
)

// stamper gives beats their identity and number and lets them out.
type stamper struct {
	outlet
	base cluster.Beat // what every beat of this process has in common

	order sync.Mutex // held from numbering to publishing: numbers go out in order
	seq   uint64
}

func newStamper(cfg Config, from string) *stamper {
	return &stamper{base: cluster.Beat{
		Schema: 1, Cluster: cfg.Cluster, Node: cfg.Node, Kind: cfg.Kind, From: from, Boot: newBoot(),
	}}
}

func (s *stamper) publish(b cluster.Beat) error {
	b.Schema, b.Cluster, b.Node = s.base.Schema, s.base.Cluster, s.base.Node
	if b.Kind == "" {
		b.Kind = s.base.Kind
	}
	if b.From == "" {
		b.From = s.base.From
	}
	if b.Boot == "" {
		b.Boot = s.base.Boot
	}
	s.order.Lock()
	defer s.order.Unlock()
	if b.Seq == 0 {
		b.Seq = s.seq + 1
	}
	s.seq = max(s.seq, b.Seq)
	f, err := newFrame(b)
	if err != nil {
		return err
	}
	s.outlet.publish(f)
	return nil
}

func newBoot() string {
	b := make([]byte, 8)
	rand.Read(b) // never fails (crypto/rand)
	return hex.EncodeToString(b)
}
