package owner

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pair is an owner and its standby, both known, and a client that has asked.
func pair(t *testing.T) (l *segmentLab, first, second *edge) {
	t.Helper()
	l = newSegmentLab(t)
	first = l.node(200)
	first.at(Owner)
	second = l.node(100)
	second.at(Standby)
	l.ask()
	l.moves(first, "first question")
	return l, first, second
}

func TestStandbyTakesOverFromAKilledOwner(t *testing.T) {
	l, first, second := pair(t)
	must(t, first.cmd.Process.Kill())
	l.moves(second, "owner killed")
	second.at(Owner)
}

func TestStandbyTakesOverFromAnOwnerThatEnds(t *testing.T) {
	l, first, second := pair(t)
	first.in.Close()
	l.moves(second, "owner ended")
}

func TestStandbyTakesOverFromAnOwnerThatIsNotReady(t *testing.T) {
	l, first, second := pair(t)
	first.order("not ready")
	l.moves(second, "owner not ready")
	first.at(Idle)
	if s := first.state(); !strings.Contains(s, notReady) {
		t.Errorf("the idle node says %s", s)
	}
	first.order("ready")
	l.moves(first, "old owner back")
	second.at(Standby)
}

func TestStandbyTakesOverFromAnOwnerThatStandsStillAndGivesBack(t *testing.T) {
	l, first, second := pair(t)
	must(t, first.cmd.Process.Signal(unix.SIGSTOP))
	l.moves(second, "owner stopped")
	l.ask() // what the stopped one finds in its sockets when it goes on
	time.Sleep(time.Second)
	must(t, first.cmd.Process.Signal(unix.SIGCONT))
	goesOn := time.Now()
	l.moves(first, "owner goes on")
	if took := time.Since(goesOn); took < 3*DefaultInterval {
		t.Errorf("the old owner spoke up after %s, before it could know that it was one again", took)
	}
	second.at(Standby)
}

func TestOneOwnerRemainsWhenAPartitionHeals(t *testing.T) {
	l, first, second := pair(t)
	l.wires.ip("link", "set", "port1", "nomaster") // the carrier stays: neither can know
	l.moves(second, "owner cut off")
	first.at(Owner)
	second.at(Owner)
	l.wires.ip("link", "set", "port1", "master", "br0")
	l.moves(first, "partition healed")
	second.at(Standby)
	first.at(Owner)
	if s := first.state() + second.state(); strings.Contains(s, "conflicts=[{") {
		t.Errorf("the meeting is told as foreign use: %s", s)
	}
}

func TestOwnerWithoutCarrierStepsBack(t *testing.T) {
	l, first, second := pair(t)
	l.wires.ip("link", "set", "port1", "down")
	l.moves(second, "owner's link down")
	first.at(Idle)
	l.wires.ip("link", "set", "port1", "up")
	l.moves(first, "owner's link up")
	second.at(Standby)
}

func TestEqualPrioritiesHaveOneOwner(t *testing.T) {
	l := newSegmentLab(t)
	one, two := l.node(100), l.node(100)
	// IPv4: the higher address; IPv6: the higher link-local one, of the higher MAC.
	eventually(t, func() bool { return strings.Count(one.state()+two.state(), "=owner ") == 2 }, func() string { return fmt.Sprintf("owners are %s; %s", one.state(), two.state()) })
}

func TestForeignHostWithTheAddressIsTold(t *testing.T) {
	l, first, _ := pair(t)
	l.client.ip("addr", "add", "10.80.0.200/32", "dev", "eth0")
	eventually(t, func() bool { return strings.Contains(first.state(), "02:00:00:00:00:99") }, func() string { return fmt.Sprintf("the owner says %s", first.state()) })
}
