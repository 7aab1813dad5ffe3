package keeper

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"manada/internal/backup"
	"manada/internal/blob"
)

// The protocol between Client and Handler, below the base URL of the storage:
// POST /keeper/<verb> with a request as JSON, answered by an answer. GET
// /keeper/state is what the host remembers.
const path = "/keeper/"

type request struct {
	Stanza    string           `json:"stanza"`
	Label     string           `json:"label,omitempty"`
	Cluster   backup.Cluster   `json:"cluster,omitzero"`
	Retention backup.Retention `json:"-"`
	Full      int              `json:"full,omitempty"`
	Diff      int              `json:"diff,omitempty"`
	Archive   int              `json:"archive,omitempty"`
	Name      string           `json:"name,omitempty"`
}

type answer struct {
	Notes   []string        `json:"notes,omitempty"`
	Expired *backup.Expired `json:"expired,omitempty"`
	Aside   []Aside         `json:"aside,omitempty"`
	Error   string          `json:"error,omitempty"`
	Hint    string          `json:"hint,omitempty"`
	Code    int             `json:"code,omitempty"` // pgBackRest's
}

// Handler serves the guarded storage and the keeper to Clients. Each request
// brings its caller (WithCaller).
func Handler(k *Keeper, g *Guard) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", blob.Handler(g))
	mux.HandleFunc("GET "+path+"state", func(w http.ResponseWriter, _ *http.Request) {
		m, err := k.State()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		m.Gaps = settled(m.Gaps, k.cfg.Now())
		_ = json.NewEncoder(w).Encode(State{Memory: m, Full: g.Full()})
	})
	for verb, do := range verbs {
		mux.HandleFunc("POST "+path+verb, func(w http.ResponseWriter, r *http.Request) {
			var q request
			var a answer
			err := json.NewDecoder(io.LimitReader(r.Body, 64<<10)).Decode(&q)
			if err == nil {
				q.Retention = backup.Retention{Full: q.Full, Diff: q.Diff, Archive: q.Archive}
				err = do(r.Context(), k, g, q, &a)
			}
			status := http.StatusOK
			if err != nil {
				status, a.Error = http.StatusConflict, err.Error()
				if e, ok := errors.AsType[*backup.Error](err); ok {
					a.Error, a.Hint, a.Code = e.Text, e.Hint, e.Code
				}
			}
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			_ = json.NewEncoder(w).Encode(a)
		})
	}
	return mux
}

var verbs = map[string]func(context.Context, *Keeper, *Guard, request, *answer) error{
	"create": func(ctx context.Context, k *Keeper, _ *Guard, q request, _ *answer) error {
		return k.Create(ctx, q.Stanza, q.Cluster)
	},
	"begin": func(ctx context.Context, k *Keeper, g *Guard, q request, a *answer) (err error) {
		if err := g.mustHold(ctx); err != nil {
			return err
		}
		a.Notes, err = k.Begin(ctx, q.Stanza)
		return err
	},
	"finish": func(ctx context.Context, k *Keeper, g *Guard, q request, a *answer) (err error) {
		if err := g.mustMake(ctx, q.Label); err != nil {
			return err
		}
		a.Notes, err = k.Finish(ctx, q.Stanza, q.Label)
		return err
	},
	"discard": func(ctx context.Context, k *Keeper, g *Guard, q request, _ *answer) error {
		if err := g.mustMake(ctx, q.Label); err != nil {
			return err
		}
		return k.Discard(ctx, q.Stanza, q.Label)
	},
	"expire": func(ctx context.Context, k *Keeper, g *Guard, q request, a *answer) (err error) {
		a.Expired, err = k.ExpireBackups(ctx, q.Stanza, q.Retention, g.Holds(callerOf(ctx)))
		return err
	},
	"set-aside": func(ctx context.Context, k *Keeper, _ *Guard, q request, a *answer) (err error) {
		if node := callerOf(ctx); node == "" || node != k.cfg.Node {
			return refused("only %s itself, the repository host, sets files of the archive aside", k.cfg.Node)
		}
		a.Aside, err = k.SetAside(ctx, q.Stanza, q.Name)
		return err
	},
}

func (g *Guard) mustHold(ctx context.Context) error {
	if node := callerOf(ctx); !g.Holds(node) {
		return refused("%s does not hold the lock of stanza %s", node, g.stanza)
	}
	return nil
}

func (g *Guard) mustMake(ctx context.Context, label string) error {
	if err := g.mustHold(ctx); err != nil {
		return err
	}
	if mine := g.Label(callerOf(ctx)); mine == "" || mine != label {
		return refused("%s does not make backup %q", callerOf(ctx), label)
	}
	return nil
}

// Client is the storage and the keeper of another host.
type Client struct {
	*blob.Remote
	base string
	http *http.Client
}

// NewClient talks to the Handler at base, as blob.NewRemote does.
func NewClient(base string, c *http.Client) (*Client, error) {
	r, err := blob.NewRemote(base, c)
	if err != nil {
		return nil, err
	}
	return &Client{r, base, c}, nil
}

func (c *Client) call(ctx context.Context, verb string, q request) (answer, error) {
	var a answer
	b, err := json.Marshal(q)
	if err != nil {
		return a, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+path+verb, bytes.NewReader(b))
	if err != nil {
		return a, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return a, fmt.Errorf("ask the repository host: %w", err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(io.LimitReader(resp.Body, 16<<20)).Decode(&a); err != nil {
		return a, fmt.Errorf("repository host answered %s; it may be of an older release: upgrade it first", resp.Status)
	}
	if resp.StatusCode == http.StatusOK {
		return a, nil
	}
	if a.Code != 0 {
		return a, &backup.Error{Code: a.Code, Text: "repository host: " + a.Error, Hint: a.Hint}
	}
	return a, fmt.Errorf("repository host: %s", a.Error)
}

// Create implements backup.Keeper.
func (c *Client) Create(ctx context.Context, stanza string, cl backup.Cluster) error {
	_, err := c.call(ctx, "create", request{Stanza: stanza, Cluster: cl})
	return err
}

// Begin implements backup.Keeper.
func (c *Client) Begin(ctx context.Context, stanza string) ([]string, error) {
	a, err := c.call(ctx, "begin", request{Stanza: stanza})
	return a.Notes, err
}

// Finish implements backup.Keeper.
func (c *Client) Finish(ctx context.Context, stanza, label string) ([]string, error) {
	a, err := c.call(ctx, "finish", request{Stanza: stanza, Label: label})
	return a.Notes, err
}

// Discard implements backup.Keeper.
func (c *Client) Discard(ctx context.Context, stanza, label string) error {
	_, err := c.call(ctx, "discard", request{Stanza: stanza, Label: label})
	return err
}

// ExpireBackups implements backup.Keeper.
func (c *Client) ExpireBackups(ctx context.Context, stanza string, r backup.Retention, _ bool) (*backup.Expired, error) {
	a, err := c.call(ctx, "expire", request{Stanza: stanza, Full: r.Full, Diff: r.Diff, Archive: r.Archive})
	if err == nil && a.Expired == nil {
		a.Expired = &backup.Expired{}
	}
	return a.Expired, err
}

// SetAside has the repository host, which asks itself, do what Keeper.SetAside does.
func (c *Client) SetAside(ctx context.Context, stanza, name string) ([]Aside, error) {
	a, err := c.call(ctx, "set-aside", request{Stanza: stanza, Name: name})
	return a.Aside, err
}

// State asks what the repository host remembers.
func (c *Client) State(ctx context.Context) (State, error) {
	var m State
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+path+"state", nil)
	if err != nil {
		return m, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return m, fmt.Errorf("ask the repository host: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return m, fmt.Errorf("repository host answered %s", resp.Status)
	}
	return m, json.NewDecoder(io.LimitReader(resp.Body, 16<<20)).Decode(&m)
}

// Local is the storage and the keeper of the repository host's own processes.
type Local struct {
	blob.Storage
	*Keeper
}
