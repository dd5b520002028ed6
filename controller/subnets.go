package controller

import (
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/controller/hub"
	"github.com/weirproject/weir/controller/ipam"
	"github.com/weirproject/weir/controller/store"
)

// subnetsAgain is how soon subnets that could not be written are tried again.
const subnetsAgain = time.Second

// leadSubnets gives every joined node its subnets of the container networks,
// and takes back those of nodes and networks that are gone, until ctx ends.
func (c *Controller) leadSubnets(ctx context.Context, held store.Leadership) error {
	select {
	case <-ctx.Done():
		return nil
	case <-c.hub.Ready():
	}
	said := ""
	for {
		state, at := c.hub.Newest()
		err := c.allotSubnets(ctx, held, state)
		if err != nil && ctx.Err() == nil && err.Error() != said {
			c.o.Log.Warn("subnets of container networks", "error", err)
		}
		if said = ""; err != nil {
			said = err.Error()
		}
		again := time.NewTimer(time.Hour)
		if err != nil && !errors.Is(err, ipam.ErrFull) {
			again.Reset(subnetsAgain)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-at.Next():
		case <-again.C:
		}
		again.Stop()
	}
}

// allotSubnets writes what has changed, as much as one commit takes; the rest
// follows when the hub has heard of that.
func (c *Controller) allotSubnets(ctx context.Context, held store.Leadership, state *hub.State) error {
	shared := state.Shared
	if len(shared.Networks)+len(shared.Subnets) == 0 {
		return nil
	}
	wanted, full := ipam.Allot(shared.Networks, shared.Nodes, shared.Subnets)
	had := map[string]api.Subnet{}
	for _, s := range shared.Subnets {
		had[hub.SubnetKey(s.Network, s.Node)] = s
	}
	var ops []store.Op
	for _, s := range wanted {
		key := hub.SubnetKey(s.Network, s.Node)
		if was, ok := had[key]; !ok || !reflect.DeepEqual(was, s) {
			value, err := json.Marshal(s)
			if err != nil {
				return err
			}
			ops = append(ops, store.Op{Key: key, Value: value})
		}
		delete(had, key)
	}
	for key := range had {
		ops = append(ops, store.Op{Key: key, Delete: true})
	}
	if len(ops) == 0 {
		return full
	}
	// What is deleted below state/ is known by the gate to whoever comes anew.
	ops = append(ops[:min(len(ops), store.MaxOps-1)], store.Op{Key: hub.GateKey, Value: []byte("subnets")})
	_, err := c.o.Member.Store.Commit(ctx, []store.Condition{held.Fence(), {Key: hub.GateKey, Version: state.Gate}}, ops)
	if errors.Is(err, store.ErrConflict) {
		return nil // the hub hears of who came before
	}
	return errors.Join(err, full)
}
