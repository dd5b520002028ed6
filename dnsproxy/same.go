package dnsproxy

import (
	"slices"

	"github.com/weirproject/weir/api"
)

// These compare what names follow from, and nothing else. Slices that are one
// need not be read, so an unchanged document of a snapshot that was changed
// piecewise costs next to nothing.

func sharing[T comparable](a, b []T) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0] || slices.Equal(a, b))
}

func sameNode(a, b *api.Node) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Name == b.Name && a.EffectiveRole() == b.EffectiveRole() && sharing(a.Addresses, b.Addresses)
}

func sameRecord(a, b *api.Record) bool {
	if a == nil || b == nil {
		return a == b
	}
	return (a.TTL == b.TTL || a.TTL != nil && b.TTL != nil && *a.TTL == *b.TTL) && sharing(a.Data, b.Data)
}

func sameTask(a, b *Task) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Service == b.Service && a.Node == b.Node && a.Down == b.Down && sharing(a.Path, b.Path) &&
		sharing(a.NodeAddresses, b.NodeAddresses) && sharing(a.Addresses, b.Addresses) && sharing(a.Ports, b.Ports)
}

// sameService compares a service's state with the one there is, and what its
// VIPs were allotted.
func (n *names) sameService(key serviceKey, s *serviceState, allotted map[string]api.VIPAddresses) bool {
	old, ok := n.services[key]
	if !ok || s == nil {
		return !ok && s == nil
	}
	if old.published != s.published || old.down != s.down || !sharing(old.doc.VIPs, s.doc.VIPs) || !sameBackends(old.doc.Backends, s.doc.Backends) {
		return false
	}
	for _, v := range s.doc.VIPs {
		if name := v.Name + "." + key.namespace; v.Name != "" && n.allotted[name] != allotted[name] {
			return false
		}
	}
	return true
}

func sameBackends(a, b []api.Backend) bool {
	if len(a) != len(b) || len(a) > 0 && &a[0] == &b[0] {
		return len(a) == len(b)
	}
	return slices.EqualFunc(a, b, func(x, y api.Backend) bool {
		return x.Address == y.Address && x.State == y.State && x.EffectiveWeight() == y.EffectiveWeight()
	})
}
