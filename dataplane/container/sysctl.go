package container

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// sysctl sets one to a value, if it has another.
func (s *Sink) sysctl(value string, path ...string) error {
	file := filepath.Join(slices.Concat([]string{"/proc/sys"}, path)...)
	held, err := os.ReadFile(file)
	if os.IsNotExist(err) {
		return nil // a kernel without IPv6
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	if string(bytes.TrimSpace(held)) == value {
		return nil
	}
	if err := os.WriteFile(file, []byte(value), 0o644); err != nil {
		return fmt.Errorf("set %s to %s: %w", file, value, err)
	}
	s.wrote()
	return nil
}

// forwarding makes the node pass on packets of the families that networks have.
// A node that forwards IPv6 takes no router's word (accept_ra=1) any more: the
// interfaces that live by it are told to go on (2).
func (s *Sink) forwarding(t Table) error {
	var v4, v6 bool
	for _, n := range t.Networks {
		for _, g := range n.Gateways {
			v4, v6 = v4 || g.Addr().Is4(), v6 || g.Addr().Is6()
		}
	}
	if v4 {
		if err := s.sysctl("1", "net", "ipv4", "ip_forward"); err != nil {
			return err
		}
	}
	if !v6 {
		return nil
	}
	const all6 = "/proc/sys/net/ipv6/conf/all/forwarding"
	if held, err := os.ReadFile(all6); os.IsNotExist(err) || err == nil && string(bytes.TrimSpace(held)) == "1" {
		return nil // a kernel without IPv6, or somebody who has seen to it
	}
	all, err := filepath.Glob("/proc/sys/net/ipv6/conf/*/accept_ra")
	if err != nil {
		return err
	}
	for _, file := range all {
		name := filepath.Base(filepath.Dir(file))
		if held, err := os.ReadFile(file); err != nil || string(bytes.TrimSpace(held)) != "1" || name == "lo" {
			continue
		}
		if err := s.sysctl("2", "net", "ipv6", "conf", name, "accept_ra"); err != nil {
			return err
		}
	}
	return s.sysctl("1", "net", "ipv6", "conf", "all", "forwarding")
}
