package agent

// ZonesConfig configures the packet filter.
type ZonesConfig struct {
	Backend string `json:"backend"` // auto, nftables or iptables
	Mode    string `json:"mode"`    // enforce, observe or off
}

func defaultZones() ZonesConfig {
	return ZonesConfig{Backend: "auto", Mode: "enforce"}
}

func (c ZonesConfig) validate() error {
	if err := choice("zones.backend", c.Backend, "auto", "nftables", "iptables"); err != nil {
		return err
	}
	return choice("zones.mode", c.Mode, "enforce", "observe", "off")
}
