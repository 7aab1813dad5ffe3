package process

import (
	"context"
	"fmt"

	"manada/internal/config"
	"manada/internal/peer"
	"manada/internal/pki"
)

func DevToken(ctx context.Context, c *config.Config) error {
	id, err := pki.Load(c.IdentityDir())
	if err != nil {
		return err
	}
	cl := peer.Client{TLS: id.TLSFor}
	var out map[string]string
	if err := cl.Call(ctx, c.Addresses().Peer, "", "POST", "/v1/token", nil, &out); err != nil {
		return err
	}
	fmt.Println(out["token"])
	return nil
}
