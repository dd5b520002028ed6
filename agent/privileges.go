package agent

// LoadsModules tells whether the agent may have kernel modules loaded after it
// has begun: iptables and IPVS do so when something is used for the first time.
func (a *Agent) LoadsModules() bool {
	return a.vips.balancer != nil && a.vips.balancer.Backend() == "ipvs" ||
		a.zones.filter != nil && a.zones.filter.Backend() == iptablesFilter
}
