package agent

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/zones"
)

// lockouts says what a policy would newly cut that must not be cut: controllers
// from agents, and the caller's own SSH session (SSH_CONNECTION: client, its
// port, server, its port; empty for none). What is open now is not cut; it is
// the next connection that would fail.
func lockouts(s *api.Snapshot, old, now *zones.View, ssh string) error {
	needed := zones.ControllerFlows(s.Nodes, api.ControllerPort, 0)
	session, has, err := sshFlow(ssh)
	if err != nil {
		return err
	}
	if has {
		needed = append(needed, session)
	}
	before := map[zones.Needed]bool{}
	for _, n := range old.Cuts(needed) {
		before[n] = true
	}
	var faults []error
	for _, n := range now.Cuts(needed) {
		if !before[n] {
			faults = append(faults, fmt.Errorf("it cuts %s (%s → %s %s): %s", n.Why, n.From, n.To, n.Port, missing(now, n)))
		}
	}
	if len(faults) == 0 {
		return nil
	}
	return fmt.Errorf("the policy is refused unless forced (--force):\n%w", errors.Join(faults...))
}

// sshFlow is the session's, as sshd tells it.
func sshFlow(connection string) (n zones.Needed, has bool, err error) {
	if connection == "" {
		return n, false, nil
	}
	words := strings.Fields(connection)
	if len(words) != 4 {
		return n, false, fmt.Errorf("SSH_CONNECTION %q is not client, port, server, port", connection)
	}
	from, err1 := netip.ParseAddr(words[0])
	to, err2 := netip.ParseAddr(words[2])
	port, err3 := strconv.ParseUint(words[3], 10, 16)
	if err := errors.Join(err1, err2, err3); err != nil {
		return n, false, fmt.Errorf("SSH_CONNECTION %q: %w", connection, err)
	}
	n = zones.Needed{Why: "your SSH session", From: from.Unmap().WithZone(""), To: to.Unmap().WithZone("")}
	n.Port = api.PortRange{Protocol: "tcp", First: uint16(port), Last: uint16(port)}
	return n, true, nil
}

// missing says what would have to be in the policy for the flow.
func missing(v *zones.View, n zones.Needed) string {
	from, to := zoneOf(v, n.From), zoneOf(v, n.To)
	d := v.Decide(zones.Packet{From: n.From, To: n.To, Port: n.Port, Hook: zones.Input})
	if zone, is := strings.CutPrefix(d.Rule, "whitelist."); is {
		return fmt.Sprintf("add %s to zones.%s.whitelist", from, zone)
	}
	return fmt.Sprintf("add a rule such as {name: keep, from: [%s], to: [%s], allow: [%s]}", from, to, n.Port)
}

// zoneOf is the first zone of an address, or the address itself.
func zoneOf(v *zones.View, a netip.Addr) string {
	if all := v.Whois(a).Zones; len(all) > 0 {
		return all[0]
	}
	if a.Is6() {
		return strconv.Quote(a.String())
	}
	return a.String()
}
