package vip

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/weirproject/weir/api"
)

// query is what a person may call a VIP.
type query struct {
	label     string // of the VIP or the service
	namespace string
	address   netip.Addr // instead of both
	port      uint16     // 0: any
}

func (q query) String() string {
	what := fmt.Sprintf("the name %s in the namespace %s", q.label, q.namespace)
	if q.address.IsValid() {
		what = "the address " + q.address.String()
	}
	if q.port != 0 {
		what += fmt.Sprintf(", port %d", q.port)
	}
	return what
}

// l4lb ends the names of virtual IPs in DC/OS.
const l4lb = ".l4lb.thisdcos.directory"

// parseQuery reads web, web.shop, web:80 or /web:80 as in a VIP label,
// web.shop.vip.<domain> or web.marathon.l4lb.thisdcos.directory, an address,
// each with or without a port.
func parseQuery(text string, domains []string) (query, error) {
	text = strings.ToLower(strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(text), "/"), "."))
	if ap, err := netip.ParseAddrPort(text); err == nil {
		return query{address: ap.Addr().Unmap(), port: ap.Port()}, nil
	}
	if a, err := netip.ParseAddr(strings.Trim(text, "[]")); err == nil {
		return query{address: a.Unmap()}, nil
	}
	var q query
	name, port, found := strings.Cut(text, ":")
	if found {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return q, fmt.Errorf("the port %q is not within 1 to 65535", port)
		}
		q.port = uint16(n)
	}
	name = strings.TrimSuffix(name, ".")
	for _, suffix := range append(slices.Clone(domains), l4lb) {
		suffix = "." + strings.Trim(suffix, ".")
		if rest, ok := strings.CutSuffix(name, suffix); ok {
			name = rest
			break
		}
	}
	name = strings.TrimSuffix(name, ".vip")
	if name == "" {
		return q, errors.New("it is empty")
	}
	// A service's name may have dots, and a namespace has none.
	q.label, q.namespace = name, api.DefaultNamespace
	if i := strings.LastIndexByte(name, '.'); i >= 0 {
		q.label, q.namespace = name[:i], name[i+1:]
	}
	return q, nil
}

// matches tells whether the service is meant, by its name or one of its VIPs.
func (q query) matches(s *api.Snapshot, doc *api.Service) bool {
	if q.label != "" && doc.EffectiveNamespace() != q.namespace {
		return false
	}
	if q.label == doc.Name && q.label != "" && q.port == 0 {
		return true
	}
	return slices.ContainsFunc(doc.VIPs, func(v api.VIP) bool { return q.matchesVIP(s, doc, v) })
}

func (q query) matchesVIP(s *api.Snapshot, doc *api.Service, v api.VIP) bool {
	if q.port != 0 && v.Port != q.port {
		return false
	}
	if q.address.IsValid() {
		return slices.Contains(s.Addresses(*doc, v), q.address)
	}
	return v.Name == q.label || doc.Name == q.label
}
