package proxy

import (
	"cmp"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"runtime"

	"manada/internal/proxy/hba"
	"manada/internal/proxy/session"
)

// options are a configuration's for sessions.
func options(cfg *Config) (session.Options, error) {
	rules, err := hba.WithOwn(cfg.HBA, cfg.Replication)
	if err != nil {
		return session.Options{}, err
	}
	var replicators []string
	for _, r := range cfg.Replication {
		replicators = append(replicators, r.Role)
	}
	return session.Options{
		Replicators: replicators,
		ClientTLS:   cfg.ClientTLS, RequireTLS: cfg.RequireTLS, MaxClients: cfg.MaxClientConn,
		LoginTimeout: cfg.LoginTimeout, ConnectWait: cfg.ConnectWait,
		ReadOnlyFallback: cfg.ReadOnlyFallback, MockSecret: mockSecret(cfg.MockSecret), MaxUnproved: cfg.MaxClientConn + spareClients,
		Split: cfg.Split, HBA: rules, Version: cfg.Version, Config: cfg.Settings, Pool: cfg.Pool, NodeLimit: cfg.NodeLimit,
		QueryTimeout: cfg.QueryTimeout, TxTimeout: cfg.TxTimeout, IdleTxTimeout: cfg.IdleTxTimeout, IdleTimeout: cfg.IdleTimeout,
		Loops: cmp.Or(cfg.Loops, max(1, runtime.GOMAXPROCS(0)/4)), ReadAgain: cfg.ReadAgain,
	}, nil
}

// Reload takes another configuration while clients are served: nobody is
// disconnected. Pools, limits, time-outs and who may log in are as it says from now
// on; modes and splitting are for clients to come. What stays as it was is named:
// that needs a restart.
func (p *Proxy) Reload(cfg Config) (restart []string, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	o, err := options(&cfg)
	if err != nil {
		return nil, err
	}
	for _, one := range []struct{ name, was, is string }{
		{"ports.sql", p.cfg.ReadWriteAddr, cfg.ReadWriteAddr}, {"ports.read_only", p.cfg.ReadOnlyAddr, cfg.ReadOnlyAddr},
	} {
		if one.was != one.is {
			restart = append(restart, one.name)
		}
	}
	for _, d := range p.dialers {
		d.SetConnectTimeout(cfg.ConnectTimeout)
	}
	p.sessions.Reload(o)
	p.warnFiles()
	p.cfg.Log.Info("configuration reloaded", "needs_restart", fmt.Sprint(restart))
	return restart, nil
}

// spareClients may be at their log-in beyond the limit of clients: the last of
// those that come at once are to be told so, and cancel requests have to get in.
const spareClients = 100

// mockSecret is what makes the log-in of a role that does not exist look the same
// at every proxy of the herd and after a restart. One that was given none makes
// its own.
func mockSecret(given string) []byte {
	if given == "" {
		b := make([]byte, 32)
		rand.Read(b) // never fails (crypto/rand)
		return b
	}
	h := hmac.New(sha256.New, []byte(given))
	h.Write([]byte("mock log-ins of the proxies"))
	return h.Sum(nil)
}
