package agent

import (
	"fmt"
	"strings"
	"time"

	"manada/internal/cluster"
	"manada/internal/health"
)

// What is told before it hurts.
const (
	diskFull   = 90 // percent of a file system
	quotaFull  = 80 // percent of the store's quota
	certExpiry = 14 * 24 * time.Hour
)

// limits looks at what runs out slowly: disk, the store's quota, this host's
// certificate, the WAL that a slot could not keep.
func (a *Agent) limits() {
	var cs []cluster.Condition
	waiting, heard := a.countWaiting(), a.hub.Heard()
	cs = append(cs, a.disks()...)
	if a.parts.CertNotAfter != nil {
		if at := a.parts.CertNotAfter(); time.Until(at) < certExpiry {
			cs = append(cs, health.Say(health.CertExpiring, a.cfg.Node, "when", at.UTC().Format(time.DateOnly)))
		}
	}
	if a.parts.ConfigRefused != nil {
		if why := a.parts.ConfigRefused(); why != "" {
			cs = append(cs, health.Say(health.ConfigRefused, a.cfg.Node, "why", why))
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.waiting = waiting
	a.noteBackups(heard)
	if st := a.storeUp; st.QuotaBytes > 0 && st.DBBytes*100 > st.QuotaBytes*quotaFull {
		cs = append(cs, health.Say(health.StoreNearlyFull, a.cfg.Node, "used", mib(st.DBBytes), "quota", mib(st.QuotaBytes)))
	}
	if a.mem.leads != 0 {
		for _, slot := range a.seen.lostSlots {
			node := strings.ReplaceAll(strings.TrimPrefix(slot, "manada_"), "_", "-")
			cs = append(cs, health.Say(health.SlotLostWAL, node, "lsn", "the end of what it has"))
		}
	}
	a.careful = cs
}

func mib(n int64) string { return fmt.Sprintf("%d MiB", n>>20) }
