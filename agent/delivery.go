package agent

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/dataplane/deliver"
	"github.com/weirproject/weir/vip"
)

// deliveryComponent takes packets of clients outside out of edge nodes' tunnels,
// on nodes with backends of edge services.
type deliveryComponent struct {
	agent  *Agent
	vips   *vipComponent
	sink   *deliver.Deliverer // nil until it is needed
	served int                // services
}

// deliveryOptions ask for the table of the backends on this node.
func (a *Agent) deliveryOptions() *vip.DeliveryOptions {
	return &vip.DeliveryOptions{Interfaces: a.config.VIP.Tunnels}
}

func (d *deliveryComponent) backend() string {
	if d.sink == nil {
		return "off"
	}
	return d.sink.Backend()
}

func (d *deliveryComponent) followsStates() bool { return true }

// apply loads the programs only once there is something to deliver, or an
// earlier agent has left some: most nodes never need them.
func (d *deliveryComponent) apply(ctx context.Context, s *api.Snapshot) (dataplane.Changes, error) {
	d.vips.mu.Lock()
	table := d.vips.result.Delivery
	d.vips.mu.Unlock()
	if d.sink == nil {
		if len(table.Services) == 0 && !pinsLeft() {
			return dataplane.Changes{}, nil
		}
		var err error
		if d.sink, err = deliver.New(deliver.Options{Log: d.agent.log.With("component", "delivery")}); err != nil {
			return dataplane.Changes{}, fmt.Errorf("load the programs that take packets out of tunnels: %w", err)
		}
		d.agent.registry.MustRegister(deliveryCollector{d.sink})
	}
	if len(table.Interfaces) == 0 && len(table.Services) > 0 {
		var err error
		if table.Interfaces, err = interfacesWith(s.Node.Addresses); err != nil {
			return dataplane.Changes{}, err
		}
	}
	changes, err := d.sink.Set(ctx, table)
	d.served = len(table.Services)
	return changes, err
}

// pinsLeft tells whether an earlier agent has delivered.
func pinsLeft() bool {
	_, err := os.Stat(filepath.Join(dataplane.PinRoot, "deliver"))
	return err == nil
}

// interfacesWith lists the interfaces that have one of the addresses.
func interfacesWith(addresses []netip.Addr) ([]string, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	var names []string
	for _, i := range all {
		own, err := i.Addrs()
		if err != nil || i.Flags&net.FlagLoopback != 0 {
			continue
		}
		if slices.ContainsFunc(own, func(a net.Addr) bool {
			p, err := netip.ParsePrefix(a.String())
			return err == nil && slices.Contains(addresses, p.Addr().Unmap())
		}) {
			names = append(names, i.Name)
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("no interface has one of the node's addresses %v: name those where tunnels arrive in vip.tunnels", addresses)
	}
	return names, nil
}

func (d *deliveryComponent) detail() string {
	if d.sink == nil {
		return "no backends of edge services here"
	}
	return fmt.Sprintf("%d edge services have backends here", d.served)
}

func (d *deliveryComponent) close() error {
	if d.sink == nil {
		return nil
	}
	return d.sink.Close()
}
