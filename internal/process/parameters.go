package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	"manada/internal/config"
	"manada/internal/durable"
	"manada/internal/postgres"
)

// sharedConfig is the herd's configuration in the store.
type sharedConfig struct {
	Schema     int               `json:"schema"` // 1
	Parameters map[string]string `json:"parameters"`
}

func readShared(raw json.RawMessage) (sharedConfig, error) {
	s := sharedConfig{Schema: 1, Parameters: map[string]string{}}
	if len(raw) == 0 {
		return s, nil
	}
	if err := json.Unmarshal(raw, &s); err != nil {
		return s, fmt.Errorf("read the herd's configuration: %w", err)
	}
	if s.Parameters == nil {
		s.Parameters = map[string]string{}
	}
	return s, nil
}

// The cluster's parameters as they were last applied here: a host that starts
// while the store is away starts with them.
func parametersPath(c *config.Config) string {
	return filepath.Join(c.StateDir(), "parameters.json")
}

func cachedParameters(c *config.Config) (map[string]string, error) {
	b, err := os.ReadFile(parametersPath(c))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the cluster's parameters: %w", err)
	}
	s, err := readShared(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", parametersPath(c), err)
	}
	return usable(s.Parameters), nil
}

// usable leaves out what this program would refuse; another version of it may
// have stored that.
func usable(params map[string]string) map[string]string {
	out := map[string]string{}
	for n, v := range params {
		if len(config.CheckParameter(n, v)) == 0 && postgres.CheckParams(map[string]string{n: v}) == nil {
			out[n] = v
		}
	}
	return out
}

// mergeParameters lays the node's parameters over the cluster's.
func mergeParameters(shared, node map[string]string) map[string]string {
	out := map[string]string{}
	own := map[string]bool{}
	for n := range node {
		own[strings.ToLower(n)] = true
	}
	for n, v := range shared {
		if !own[strings.ToLower(n)] {
			out[n] = v
		}
	}
	maps.Copy(out, node)
	return out
}

// keepParameters gives PostgreSQL the cluster's parameters and those of this
// host: once when an agent has adopted a running one, whose configuration may be
// older than the agent's, and then whenever the cluster's change.
func (h *hostAgent) keepParameters(ctx context.Context) {
	if h.db == nil {
		return
	}
	cached, _ := cachedParameters(h.cfg) // addDatabase has told of an error
	h.setShared(cached)
	h.adoptParameters(ctx)
	every(ctx, time.Second, func() {
		if err := h.takeParameters(ctx); err != nil && ctx.Err() == nil {
			h.log.Debug("the cluster's parameters are not known", "error", err.Error())
		}
	})
}

func (h *hostAgent) setShared(p map[string]string) {
	h.mu.Lock()
	h.shared = p
	h.mu.Unlock()
}

func (h *hostAgent) sharedParameters() map[string]string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return maps.Clone(h.shared)
}

func (h *hostAgent) adoptParameters(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if st, err := h.guard.Status(ctx); err != nil || !st.Running {
		return // whoever starts it renders
	}
	h.apply(ctx, h.sharedParameters())
}

// takeParameters reads the cluster's and applies them when they are others.
func (h *hostAgent) takeParameters(ctx context.Context) error {
	raw, _, err := h.store.Config(ctx)
	if err != nil {
		return err
	}
	s, err := readShared(raw)
	if err != nil {
		return err
	}
	want := usable(s.Parameters)
	if maps.Equal(want, h.sharedParameters()) {
		return nil
	}
	b, err := json.MarshalIndent(sharedConfig{Schema: 1, Parameters: want}, "", "  ")
	if err != nil {
		return err
	}
	if err := durable.Write(parametersPath(h.cfg), append(b, '\n'), durable.Options{}); err != nil {
		h.log.Error("cannot keep the cluster's parameters", "error", err.Error())
	}
	if h.apply(ctx, want) {
		h.setShared(want)
	}
	return nil
}

func (h *hostAgent) apply(ctx context.Context, shared map[string]string) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	err := h.db.Reconfigure(ctx, mergeParameters(shared, h.cfg.PostgreSQL.Parameters), h.cfg.PostgreSQL.HBA)
	if err != nil && ctx.Err() == nil {
		h.log.Error("configuration of PostgreSQL not renewed", "error", err.Error())
	}
	return err == nil
}
