package postgres

import (
	"context"
	"fmt"
)

// WriteControl writes the control row of an epoch, flushed here and not waiting
// for any standby. Writing it again changes nothing but the nonce.
func (i *Instance) WriteControl(ctx context.Context, epoch uint64, node, nonce string) error {
	sql := fmt.Sprintf("insert into manada.control (epoch, node, nonce) values (%d, %s, %s) on conflict (epoch) do update set node = excluded.node, nonce = excluded.nonce, at = now()",
		epoch, literal(node), literal(nonce))
	if _, err := i.query(ctx, sql); err != nil {
		return fmt.Errorf("write control row of epoch %d: %w", epoch, err)
	}
	return nil
}
