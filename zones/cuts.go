package zones

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/weirproject/weir/api"
)

// Needed is a flow that must not be cut.
type Needed struct {
	Why      string // such as "your SSH session"
	From, To netip.Addr
	Port     api.PortRange // one port
}

// Cuts lists the flows that the policy would not let be opened: a policy that
// cuts any is not to be applied unless somebody insists. What is established
// already goes on; it is the next connection that fails.
func (v *View) Cuts(needed []Needed) []Needed {
	return slices.DeleteFunc(slices.Clone(needed), func(n Needed) bool {
		from, to := plain(n.From), plain(n.To)
		return v.Decide(Packet{From: from, To: to, Port: n.Port, Hook: v.hookOf(from, to)}).Verdict == api.Allow
	})
}

// ControllerFlows are those between every other node and the controllers, to
// the port of their API and, where back is set, from them to that port of the
// agents.
func ControllerFlows(nodes []api.Node, port, back uint16) []Needed {
	var all []Needed
	for _, c := range nodes {
		if c.EffectiveRole() != api.RoleController {
			continue
		}
		for _, n := range nodes {
			from, to, ok := commonFamily(n, c)
			if n.Name == c.Name || !ok {
				continue
			}
			all = append(all, Needed{fmt.Sprintf("node %s to controller %s", n.Name, c.Name), from, to, onePort(port)})
			if back != 0 {
				all = append(all, Needed{fmt.Sprintf("controller %s to node %s", c.Name, n.Name), to, from, onePort(back)})
			}
		}
	}
	return all
}

func onePort(n uint16) api.PortRange { return api.PortRange{Protocol: "tcp", First: n, Last: n} }

// commonFamily picks the first addresses of two nodes that share a family.
func commonFamily(a, b api.Node) (x, y netip.Addr, ok bool) {
	for _, x := range a.Addresses {
		for _, y := range b.Addresses {
			if plain(x).Is4() == plain(y).Is4() {
				return plain(x), plain(y), true
			}
		}
	}
	return x, y, false
}
