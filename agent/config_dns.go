package agent

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/weirproject/weir/agent/resolvconf"
	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dnsproxy"
)

// DNSConfig configures the DNS proxy. Without listen addresses it is off.
type DNSConfig struct {
	Listen  []netip.Addr `json:"listen"`
	Port    uint16       `json:"port"`
	Domain  string       `json:"domain"`
	Aliases []string     `json:"aliases"`
	// DCOS answers the names of DC/OS too, and DCOSCluster is the label before
	// dcos.directory that stands for this cluster.
	DCOS        bool   `json:"dcos"`
	DCOSCluster string `json:"dcos_cluster"`
	// Upstreams answer names outside the cluster: an address, or tcp://, tls:// or
	// https:// with one.
	Upstreams []dnsproxy.Upstream `json:"upstreams"`
	// Forward has upstreams of their own for zones; the longest match counts. A
	// zone without any is refused.
	Forward map[string][]dnsproxy.Upstream `json:"forward"`
	// Access says, by zone, which networks may ask; "." is everything.
	Access map[string][]netip.Prefix `json:"access"`
	// Transfer lists who may have the cluster's zones as a whole (AXFR).
	Transfer []netip.Prefix `json:"transfer"`
	// UpstreamCA is a file of certificates that sign TLS and HTTPS upstreams';
	// empty: the system's.
	UpstreamCA string `json:"upstream_ca"`
	// StaleAfter is how long a client waits for upstreams while there is an
	// answer past its end, StaleFor how long past its end that serves.
	StaleAfter api.Duration `json:"stale_after"`
	StaleFor   api.Duration `json:"stale_for"`
	// ResponseRate bounds the answers a second about names outside to one
	// network that is not private; -1: no bound.
	ResponseRate int `json:"response_rate"`
	// CacheEntries and CacheBytes bound the cache.
	CacheEntries int `json:"cache_entries"`
	CacheBytes   int `json:"cache_bytes"`
	// TLS has the proxy asked over TLS too.
	TLS DNSTLSConfig `json:"tls"`
	// ManageResolvConf makes the host itself ask the proxy: off, auto, file,
	// resolvconf or systemd-resolved.
	ManageResolvConf string `json:"manage_resolv_conf"`
	// NSID names this node to who asks for it (RFC 5001); empty: nobody is told.
	// Version is told to who asks for version.bind, likewise.
	NSID    string `json:"nsid"`
	Version string `json:"version"`
	// EmptyZones denies reverse names of private addresses that nobody here
	// knows, instead of asking an upstream (RFC 6303).
	EmptyZones bool `json:"empty_zones"`
	// Dnstap is where queries and answers go in dnstap's format: unix:PATH of a
	// socket, or a file.
	Dnstap string `json:"dnstap"`
	// Kernel has the kernel answer for addresses of cluster names where it can:
	// auto or off. KernelLo does so for the host's own processes too.
	Kernel   string `json:"kernel"`
	KernelLo bool   `json:"kernel_lo"`
}

// DNSTLSConfig is where the proxy is asked over TLS (RFC 7858). Without listen
// addresses it is not.
type DNSTLSConfig struct {
	Listen []netip.Addr `json:"listen"`
	Port   uint16       `json:"port"`
	// Certificate and Key are files in PEM, read anew when they change.
	Certificate string `json:"certificate"`
	Key         string `json:"key"`
}

// forwarding is what the proxy asks whom, and who may ask it.
func (c DNSConfig) forwarding() dnsproxy.Forwarding {
	f := dnsproxy.Forwarding{Transfer: c.Transfer}
	if len(c.Upstreams) > 0 {
		f.Zones = append(f.Zones, dnsproxy.ForwardZone{Zone: ".", Upstreams: c.Upstreams})
	}
	for _, zone := range slices.Sorted(maps.Keys(c.Forward)) {
		f.Zones = append(f.Zones, dnsproxy.ForwardZone{Zone: zone, Upstreams: c.Forward[zone]})
	}
	for _, zone := range slices.Sorted(maps.Keys(c.Access)) {
		f.Access = append(f.Access, dnsproxy.Access{Zone: zone, Allow: c.Access[zone]})
	}
	return f
}

func (c DNSConfig) listen() []netip.AddrPort { return atPort(c.Listen, c.Port) }

func (c DNSTLSConfig) listen() []netip.AddrPort { return atPort(c.Listen, c.Port) }

func atPort(addresses []netip.Addr, port uint16) (all []netip.AddrPort) {
	for _, addr := range addresses {
		all = append(all, netip.AddrPortFrom(addr, port))
	}
	return all
}

// addresses that the proxy listens at, each once.
func (c DNSConfig) addresses() []netip.Addr {
	all := slices.Clone(c.Listen)
	for _, a := range c.TLS.Listen {
		if !slices.Contains(all, a) {
			all = append(all, a)
		}
	}
	return all
}

// asksHost tells whether names outside are asked of the servers that the host
// has without us: when the file names none, not even for the zone ".".
func (c DNSConfig) asksHost() bool {
	_, root := c.Forward["."]
	return len(c.Upstreams) == 0 && !root
}

func defaultDNS() DNSConfig {
	return DNSConfig{
		Listen: []netip.Addr{netip.MustParseAddr("169.254.53.53")}, Port: 53, Domain: "weir.internal", Aliases: []string{"mesos"},
		StaleAfter: api.Duration(1800 * time.Millisecond), StaleFor: api.Duration(24 * time.Hour), ResponseRate: 20, CacheEntries: 10_000, CacheBytes: 16 << 20,
		TLS: DNSTLSConfig{Port: 853}, ManageResolvConf: string(resolvconf.Off), Kernel: kernelAuto,
	}
}

func (c DNSConfig) validate() error {
	if err := checkListen("dns.listen", c.Listen); err != nil {
		return err
	}
	if err := checkListen("dns.tls.listen", c.TLS.Listen); err != nil {
		return err
	}
	if err := c.forwarding().Validate(append(c.listen(), c.TLS.listen()...)); err != nil {
		return fault("dns", "%v", err)
	}
	if len(c.TLS.Listen) > 0 && (c.TLS.Certificate == "" || c.TLS.Key == "") {
		return fault("dns.tls.certificate", "dns.tls.certificate and dns.tls.key must both name a file")
	}
	if err := choice("dns.manage_resolv_conf", c.ManageResolvConf, resolvconf.Modes()...); err != nil {
		return err
	}
	if c.ManageResolvConf != string(resolvconf.Off) && (c.Port != 53 || len(c.Listen) == 0) {
		return fault("dns.manage_resolv_conf", "a host asks at port 53 only: dns.listen must have an address, and dns.port must be 53")
	}
	if err := choice("dns.kernel", c.Kernel, kernelAuto, kernelOff); err != nil {
		return err
	}
	if c.Domain == "" {
		return fault("dns.domain", "is missing")
	}
	return nil
}

// checkListen names an address that cannot be put on lo.
func checkListen(field string, addresses []netip.Addr) error {
	for i, a := range addresses {
		if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a.Is4In6() || a.Is6() && a.IsLinkLocalUnicast() {
			return fault(fmt.Sprintf("%s[%d]", field, i), "%s is no address that lo can have", a)
		}
	}
	return nil
}
