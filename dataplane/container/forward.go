package container

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/google/nftables"

	"github.com/weirproject/weir/dataplane"
)

// Somebody else's chain with the policy to drop, such as that of iptables where
// Docker runs, drops what no rule in it accepts, whatever other tables say. So
// containers' packets get a rule there: after all others, to overrule none.

// forwardRules are the matches of the rules.
var forwardRules = [2][2]string{{"-i", dataplane.BridgePrefix + "+"}, {"-o", dataplane.BridgePrefix + "+"}}

// setForward adds the rules where the policy drops, or removes them.
func (s *Sink) setForward(wanted bool) error {
	commands, err := dropping()
	if err != nil {
		return err
	}
	var faults []error
	for _, command := range commands {
		held, err := forwarded(command)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		for i, there := range held {
			if there == wanted {
				continue
			}
			verb := "-A"
			if !wanted {
				verb = "-D"
			}
			if _, err := iptables(command, slices.Concat([]string{verb}, forwardRule(i))...); err != nil {
				faults = append(faults, err)
				continue
			}
			if wanted {
				s.wrote()
			} else {
				s.removed()
			}
		}
	}
	return errors.Join(faults...)
}

func forwardRule(i int) []string {
	return []string{"FORWARD", forwardRules[i][0], forwardRules[i][1], "-m", "comment", "--comment", dataplane.ContainerTableName, "-j", "ACCEPT"}
}

// dropping lists the iptables commands whose FORWARD chain has the policy DROP.
// The kernel is asked first: without such a chain no command is run.
func dropping() ([]string, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, err
	}
	var commands []string
	for family, name := range map[nftables.TableFamily]string{nftables.TableFamilyIPv4: "iptables", nftables.TableFamilyIPv6: "ip6tables"} {
		chains, err := conn.ListChainsOfTableFamily(family)
		if err != nil {
			return nil, fmt.Errorf("list chains of %s: %w", name, err)
		}
		if slices.ContainsFunc(chains, func(c *nftables.Chain) bool {
			return c.Table.Name == "filter" && c.Name == "FORWARD" && c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop
		}) {
			commands = append(commands, name+"-nft")
		}
		// The old kind of table is there once somebody has used it.
		file := map[string]string{"iptables": "ip_tables_names", "ip6tables": "ip6_tables_names"}[name]
		if tables, err := os.ReadFile("/proc/thread-self/net/" + file); err != nil || !bytes.Contains(tables, []byte("filter")) {
			continue
		}
		if out, err := iptables(name+"-legacy", "-S", "FORWARD"); err == nil && strings.Contains(out, "-P FORWARD DROP") {
			commands = append(commands, name+"-legacy")
		}
	}
	slices.Sort(commands)
	return commands, nil
}

// forwarded tells which of the rules are there.
func forwarded(command string) (held [2]bool, err error) {
	out, err := iptables(command, "-S", "FORWARD")
	if err != nil {
		return held, err
	}
	for _, line := range strings.Split(out, "\n") {
		for i, m := range forwardRules {
			if strings.Contains(line, m[0]+" "+m[1]+" ") && strings.Contains(line, dataplane.ContainerTableName) {
				held[i] = true
			}
		}
	}
	return held, nil
}

func iptables(command string, arguments ...string) (string, error) {
	cmd := exec.Command(command, append([]string{"-w", "5"}, arguments...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("run %s %s: %w: %s", command, strings.Join(arguments, " "), err, bytes.TrimSpace(out))
	}
	return string(out), nil
}
