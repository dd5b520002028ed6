package main

import (
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// names are those of the capabilities that systemd's units use.
var names = map[string]int{
	"CAP_CHOWN": unix.CAP_CHOWN, "CAP_DAC_OVERRIDE": unix.CAP_DAC_OVERRIDE, "CAP_FOWNER": unix.CAP_FOWNER, "CAP_FSETID": unix.CAP_FSETID,
	"CAP_KILL": unix.CAP_KILL, "CAP_SETGID": unix.CAP_SETGID, "CAP_SETUID": unix.CAP_SETUID, "CAP_SETPCAP": unix.CAP_SETPCAP,
	"CAP_NET_BIND_SERVICE": unix.CAP_NET_BIND_SERVICE, "CAP_NET_ADMIN": unix.CAP_NET_ADMIN, "CAP_NET_RAW": unix.CAP_NET_RAW,
	"CAP_SYS_MODULE": unix.CAP_SYS_MODULE, "CAP_SYS_CHROOT": unix.CAP_SYS_CHROOT, "CAP_SYS_PTRACE": unix.CAP_SYS_PTRACE,
	"CAP_SYS_ADMIN": unix.CAP_SYS_ADMIN, "CAP_SYS_RESOURCE": unix.CAP_SYS_RESOURCE, "CAP_MKNOD": unix.CAP_MKNOD,
	"CAP_AUDIT_WRITE": unix.CAP_AUDIT_WRITE, "CAP_SETFCAP": unix.CAP_SETFCAP, "CAP_PERFMON": unix.CAP_PERFMON, "CAP_BPF": unix.CAP_BPF,
}

// TestKeptCapabilitiesAreThoseOfTheUnit holds the two lists together: what the
// unit does not give cannot be kept, and what is given and not kept is given up.
func TestKeptCapabilitiesAreThoseOfTheUnit(t *testing.T) {
	unit, err := os.ReadFile("weir-agent.service")
	if err != nil {
		t.Fatal(err)
	}
	var given []int
	for line := range strings.Lines(string(unit)) {
		list, ok := strings.CutPrefix(strings.TrimSpace(line), "CapabilityBoundingSet=")
		if !ok {
			continue
		}
		for _, name := range strings.Fields(list) {
			c, known := names[name]
			if !known {
				t.Fatalf("the unit has %s, which this test does not know", name)
			}
			given = append(given, c)
		}
	}
	want := append(slices.Clone(kept), unix.CAP_SYS_MODULE)
	slices.Sort(want)
	slices.Sort(given)
	if !slices.Equal(given, want) {
		t.Errorf("the unit gives %v, and what is kept and CAP_SYS_MODULE are %v", given, want)
	}
}
