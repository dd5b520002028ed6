package iptables

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/weirproject/weir/netspace"
)

// commands runs the host's commands in a network namespace.
type commands struct {
	netns   int
	variant string
}

// name gives the command for a family: iptables-legacy-save, for one.
func (c commands) name(v6 bool, what string) string {
	name := "iptables"
	if v6 {
		name = "ip6tables"
	}
	if c.variant != "" {
		name += "-" + c.variant
	}
	if what != "" {
		name += "-" + what
	}
	return name
}

// have tells whether the commands are installed.
func (c commands) have() bool {
	for _, name := range []string{c.name(false, "restore"), c.name(false, "save"), "ipset"} {
		if _, err := exec.LookPath(name); err != nil {
			return false
		}
	}
	return true
}

// run runs a command with the input and gives its output. Its error has what
// the command said.
func (c commands) run(ctx context.Context, input []byte, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.Stdin = bytes.NewReader(input)
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := c.inside(cmd.Run); err != nil {
		return nil, fmt.Errorf("run %s: %w: %s", strings.Join(append([]string{name}, args...), " "), err, explain(complaint.String(), input))
	}
	return out.Bytes(), nil
}

// explain adds the line of the input that a complaint is about.
func explain(complaint string, input []byte) string {
	complaint = strings.TrimSpace(complaint)
	_, after, found := strings.Cut(complaint, "line ")
	if !found {
		_, after, found = strings.Cut(complaint, "line: ")
	}
	var n int
	if _, err := fmt.Sscanf(after, "%d", &n); !found || err != nil {
		return complaint
	}
	if lines := strings.Split(string(input), "\n"); n >= 1 && n <= len(lines) {
		complaint += ": " + lines[n-1]
	}
	return complaint
}

// inside runs fn in the network namespace, on a thread of its own.
func (c commands) inside(fn func() error) error {
	if c.netns == 0 {
		return fn()
	}
	return netspace.Enter(c.netns, fn)
}

// families are those that the namespace has.
func (c commands) families() []bool {
	six := false
	_ = c.inside(func() error {
		_, err := os.Stat("/proc/thread-self/net/if_inet6")
		six = err == nil
		return nil
	})
	if six {
		return []bool{false, true}
	}
	return []bool{false}
}

// Supported tells why iptables and ipset cannot be used in the caller's network
// namespace, nil when they can. It tries what every ruleset needs in chains and
// sets that nobody looks into, and removes them.
func Supported(ctx context.Context, variant string) error {
	f, err := New(Options{Variant: variant})
	if err != nil {
		return err
	}
	if !f.commands.have() {
		return fmt.Errorf("try iptables: %s or ipset is not installed", f.commands.name(false, ""))
	}
	const set = "weir4-try"
	if _, err := f.commands.run(ctx, []byte("create "+set+" hash:net family inet\n"), "ipset", "restore", "-exist"); err != nil {
		return fmt.Errorf("try ipset: %w", err)
	}
	var faults []error
	for _, v6 := range f.commands.families() {
		match := " -m conntrack --ctstate INVALID"
		if !v6 {
			match += " -m set --match-set " + set + " src"
		}
		probe := "*filter\n:WEIR-TRY - [0:0]\n-A WEIR-TRY" + match + " -m comment --comment x -j NFLOG --nflog-group 1\n" +
			"-F WEIR-TRY\n-X WEIR-TRY\nCOMMIT\n"
		if _, err := f.commands.run(ctx, []byte(probe), f.commands.name(v6, "restore"), "--noflush", "-w", "5"); err != nil {
			faults = append(faults, fmt.Errorf("try iptables: %w", err))
		}
	}
	if _, err := f.commands.run(ctx, nil, "ipset", "destroy", set); err != nil {
		faults = append(faults, fmt.Errorf("try ipset: %w", err))
	}
	return errors.Join(faults...)
}
