package config

import (
	"fmt"
	"maps"
	"slices"

	"manada/internal/proxy/pool/rules"
)

// Rules are the settings of the proxy's pools.
func (c *Config) Rules() (rules.Config, error) {
	p := c.Proxy.Pool
	mode, err := rules.ParseMode(p.Mode)
	if err != nil {
		return rules.Config{}, err
	}
	out := rules.Config{MaxClients: c.Proxy.MaxClients, Default: rules.Settings{Mode: mode, Size: p.Size, Reserve: p.Reserve, ReserveTimeout: p.ReserveTimeout,
		Min: p.Min, QueueTimeout: p.QueueTimeout, Lifetime: p.Lifetime, IdleTimeout: p.IdleTimeout}}
	for _, pattern := range slices.Sorted(maps.Keys(p.Overrides)) {
		o, err := rules.ParseOverride(pattern, p.Overrides[pattern])
		if err != nil {
			return rules.Config{}, err
		}
		out.Overrides = append(out.Overrides, o)
	}
	return out, nil
}

// pool checks what the types of the keys do not.
func (v *validator) pool() {
	p := v.c.Proxy.Pool
	for _, pattern := range slices.Sorted(maps.Keys(p.Overrides)) {
		if _, err := rules.ParseOverride(pattern, p.Overrides[pattern]); err != nil {
			v.fail("proxy.pool.overrides."+pattern, err.Error(), "settings of a DATABASE, of */USER or of DATABASE/USER", "such as  orders/app: size=20 mode=transaction")
		}
	}
	v.overridden()
	if p.Size > 0 && p.Min > p.Size {
		v.fail("proxy.pool.min", fmt.Sprintf("%d is more than proxy.pool.size, %d", p.Min, p.Size), "at most the size", "")
	}
	if p.NodeLimit > 0 && p.Size > p.NodeLimit {
		v.fail("proxy.pool.size", fmt.Sprintf("%d is more than proxy.pool.node_limit, %d", p.Size, p.NodeLimit), "at most the limit of a node over all pools", "")
	}
}

// overridden checks what overrides make of the settings together. What cannot be read was
// told already.
func (v *validator) overridden() {
	all, err := v.c.Rules()
	if err != nil {
		return
	}
	limit := v.c.Proxy.Pool.NodeLimit
	for i, pattern := range slices.Sorted(maps.Keys(v.c.Proxy.Pool.Overrides)) {
		o := all.Overrides[i]
		sets := func(name string) bool {
			return slices.ContainsFunc(o.Set, func(a rules.Assignment) bool { return a.Name == name })
		}
		s, key := all.For(o.Database, o.User), "proxy.pool.overrides."+pattern
		if s.Size > 0 && s.Min > s.Size && (sets("min") || sets("size")) {
			v.fail(key, fmt.Sprintf("min %d is more than size %d", s.Min, s.Size), "at most the size", "")
		}
		if limit > 0 && s.Size > limit && sets("size") {
			v.fail(key, fmt.Sprintf("size %d is more than proxy.pool.node_limit, %d", s.Size, limit), "at most the limit of a node over all pools", "")
		}
	}
}
