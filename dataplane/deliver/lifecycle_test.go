package deliver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/bpf"
	"github.com/weirproject/weir/dataplane"
)

const childVariable = "WEIR_DELIVER_TEST_OWNER"

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		ownerMain()
		return
	}
	os.Exit(m.Run())
}

var nothing dataplane.Changes

func TestTheSecondSetChangesNothing(t *testing.T) {
	r := newRig(t)
	if c := r.set(); c != nothing {
		t.Errorf("got %+v, want no change", c)
	}
}

func TestASetLeavesNothingOfTheTableBefore(t *testing.T) {
	r := newRig(t)
	r.table = dataplane.DeliveryTable{}
	c := r.set()
	if c.Removed != 8+4+2 || c.Repaired != 0 {
		t.Errorf("got %+v, want 8 targets, 4 ends and 2 links removed", c)
	}
	entries, err := os.ReadDir(r.d.options.PinDir)
	if err != nil || len(entries) != 1 {
		t.Errorf("the pin folder holds %v (%v), want the maps' folder alone", entries, err)
	}
	if c := r.set(); c != nothing {
		t.Errorf("the next Set: got %+v, want no change", c)
	}
}

func TestDamageIsRepairedAndCounted(t *testing.T) {
	r := newRig(t)
	pin := func(hook string) string {
		index := r.node.link("n0").Attrs().Index
		return filepath.Join(r.d.options.PinDir, place{index, hook}.pin())
	}
	held := func(hook string) link.Link {
		l, err := link.LoadPinnedLink(pin(hook), nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return l
	}
	for _, c := range []struct {
		name   string
		damage func() error
		want   int
	}{
		{"target deleted", func() error {
			w, _ := compile(r.table, limits{100, 100})
			for key := range w.targets {
				return r.d.maps[bpf.DeliverMapTargets].Delete(&key)
			}
			return nil
		}, 1},
		{"role changed", func() error {
			key := encodeAddress(edge4)
			return r.d.maps[bpf.DeliverMapEnds].Put(&key, &bpf.DeliverTunnelEnd{})
		}, 1},
		{"config changed", func() error {
			return r.d.maps[bpf.DeliverMapConfig].Put(uint32(0), &bpf.DeliverConfig{Mtu: 9})
		}, 1},
		{"link detached", func() error { return held("ingress").Detach() }, 1},
		{"pin of a link removed", func() error { return os.Remove(pin("egress")) }, 1},
		{"program replaced", func() error { return held("egress").Update(foreignProgram(t)) }, 1},
		{"pin of a map removed", func() error { return os.Remove(filepath.Join(r.d.dir, bpf.DeliverMapFlows)) }, 1},
		{"all pins removed", func() error { return os.RemoveAll(r.d.options.PinDir) }, 2 + 6},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := c.damage(); err != nil {
				t.Fatal(err)
			}
			if got := r.set(); got.Repaired != c.want || got.Written != 0 || got.Removed != 0 {
				t.Errorf("got %+v, want %d repaired", got, c.want)
			}
			r.requests(vip4, 3, 10, 10)
			if got := r.set(); got != nothing {
				t.Errorf("the next Set: got %+v, want no change", got)
			}
		})
	}
}

// What is in a map and not wanted is removed, whoever put it there.
func TestForeignEntriesAreRemoved(t *testing.T) {
	d := open(t, newOptions(t))
	set(t, d, table())
	key := bpf.DeliverTarget{VipPortBe: 1}
	if err := d.maps[bpf.DeliverMapTargets].Put(&key, uint32(1)); err != nil {
		t.Fatal(err)
	}
	if c := set(t, d, table()); c != (dataplane.Changes{Removed: 1}) {
		t.Errorf("got %+v, want 1 removed", c)
	}
}

func foreignProgram(t *testing.T) *ebpf.Program {
	t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SchedCLS, AttachType: ebpf.AttachTCXEgress, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, -1), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func TestAnInterfaceThatIsMadeAnewIsAttachedAnew(t *testing.T) {
	r := newRig(t)
	if err := r.node.links.LinkDel(r.node.link("n0")); err != nil {
		t.Fatal(err)
	}
	err := r.node.do(func() error {
		_, err := r.d.Set(context.Background(), r.table)
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "n0") {
		t.Errorf("Set without the interface: got %v, want an error that names it", err)
	}
	wire(r.node, "n0", r.edge, "e1")
	r.edge.up("e1", "10.80.0.31/24", "fd00:80::31/64")
	r.node.up("n0", "10.80.0.11/24", "fd00:80::11/64")
	r.node.route("0.0.0.0/0", "10.80.0.31", 0)
	r.set()
	r.requests(vip4, 3, 10, 10)
	if c := r.set(); c != nothing {
		t.Errorf("the next Set: got %+v, want no change", c)
	}
}

func TestOpenFlowsSurviveTheOwner(t *testing.T) {
	r := newRig(t)
	var c net.Conn
	r.client.must(func() (err error) { c, err = net.Dial("tcp", vip4.String()); return err })
	defer c.Close()
	say := func(b string) {
		t.Helper()
		if _, err := c.Write([]byte(b)); err != nil {
			t.Fatal(err)
		}
	}
	// 4 bytes of body are announced.
	say("\x00\x00\x00\x04\x00\x00")
	// Another process takes over, and is killed.
	r.d.Close()
	owner := startOwner(t, r)
	say("\x00\x01a")
	owner.Process.Kill()
	owner.Wait()
	say("b")
	// And this one takes over again.
	d, err := New(r.d.options)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	r.d = d
	if c := r.set(); c != nothing {
		t.Errorf("Set after the owner was killed: got %+v, want no change", c)
	}
	say("cd")
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	answer, err := io.ReadAll(c)
	if err != nil || len(answer) != 33 {
		t.Errorf("got %d bytes and %v, want 33", len(answer), err)
	}
	r.requests(vip4, 3, 10, 10)
}

// startOwner starts a process in the node's namespace that sets the table and
// waits.
func startOwner(t *testing.T, r *rig) *exec.Cmd {
	t.Helper()
	command := exec.Command(os.Args[0])
	command.Env = append(os.Environ(), childVariable+"=1")
	in, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	// A process starts in the namespace of the thread that starts it.
	r.node.must(command.Start)
	t.Cleanup(func() { command.Process.Kill(); command.Wait() })
	if err := json.NewEncoder(in).Encode(ownerJob{Options{PinDir: r.d.options.PinDir}, r.table}); err != nil {
		t.Fatal(err)
	}
	var fault string
	if err := json.NewDecoder(out).Decode(&fault); err != nil || fault != "" {
		t.Fatalf("the owner: %s (%v)", fault, err)
	}
	return command
}

type ownerJob struct {
	Options Options
	Table   dataplane.DeliveryTable
}

func ownerMain() {
	var job ownerJob
	var c dataplane.Changes
	err := json.NewDecoder(os.Stdin).Decode(&job)
	var d *Deliverer
	if err == nil {
		d, err = New(job.Options)
	}
	if err == nil {
		c, err = d.Set(context.Background(), job.Table)
	}
	fault := ""
	if err == nil && c != nothing {
		err = fmt.Errorf("Set changed %+v", c)
	}
	if err != nil {
		fault = err.Error()
	}
	json.NewEncoder(os.Stdout).Encode(fault)
	io.Copy(io.Discard, os.Stdin)
}

func TestMapsOfAnotherLayoutGoWhenOursWork(t *testing.T) {
	o := newOptions(t)
	d := open(t, o)
	set(t, d, table())
	old := filepath.Join(o.PinDir, layoutPrefix+"00000000")
	if err := os.Mkdir(old, 0o700); err != nil {
		t.Fatal(err)
	}
	set(t, d, table())
	if _, err := os.Stat(old); !os.IsNotExist(err) {
		t.Errorf("the folder of another layout: got %v, want that it is gone", err)
	}
}

func TestWhatCannotBeDeliveredIsLeftOutByName(t *testing.T) {
	d := open(t, newOptions(t))
	good := table()
	mixed := service("mixed/tcp", api.TCP, ap("198.18.1.1:80"), back6, node6)
	homeless := service("homeless/tcp", api.TCP, ap("198.18.1.2:80"), back4, netip.Addr{})
	taken := service("taken/tcp", api.TCP, vip4, back4, node4)
	zero := service("zero/tcp", api.TCP, ap("198.18.1.3:80"), ap("10.80.0.11:0"), node4)
	sctp := service("sctp/sctp", "sctp", ap("198.18.1.4:80"), back4, node4)
	nat := service("nat/tcp", api.TCP, ap("198.18.1.5:80"), back4, netip.Addr{})
	nat.Deliver = api.NAT
	bad := good
	bad.Services = append(append([]*dataplane.EdgeService{}, good.Services...), mixed, homeless, taken, zero, sctp, nat, good.Services[0])
	_, err := d.Set(context.Background(), bad)
	var left *dataplane.LeftOut
	if !errors.As(err, &left) || len(left.Services) != 6 {
		t.Fatalf("got %v, want six services left out", err)
	}
	for name, want := range map[string]string{
		mixed.Name: "family", homeless.Name: "node", taken.Name: "web/tcp/4's", zero.Name: "10.80.0.11:0",
		sctp.Name: "sctp", good.Services[0].Name: "twice",
	} {
		if why := left.Services[name]; why == nil || !strings.Contains(why.Error(), want) {
			t.Errorf("%s: got %v, want a word of %q", name, why, want)
		}
	}
	word, out := ingress(t, d, families[0].wrap(packet{from: cli4, to: vip4, protocol: tcp, flags: syn}.ip()))
	expect(t, "the others", word, out, tcxNext, packet{from: cli4, to: back4, protocol: tcp, flags: syn}.frame())
}

func TestTheTableOfTargetsIsNotOverfilled(t *testing.T) {
	o := newOptions(t)
	o.Targets = 4
	d := open(t, o)
	one := service("z/tcp/4", api.TCP, ap("198.18.0.99:80"), back4, node4)
	more := table()
	more.Services = append(more.Services, one)
	_, err := d.Set(context.Background(), more)
	var left *dataplane.LeftOut
	if !errors.As(err, &left) || left.Services["z/tcp/4"] == nil || !strings.Contains(err.Error(), "holds 4") {
		t.Errorf("got %v, want the fifth target left out", err)
	}
}

func TestBadTablesAreRefused(t *testing.T) {
	d := open(t, newOptions(t))
	for name, bad := range map[string]dataplane.DeliveryTable{
		"edge":         {Edges: []netip.Addr{{}}},
		"no interface": {Interfaces: []string{"weir-none0"}},
		"not Ethernet": {Interfaces: []string{"lo"}},
	} {
		if _, err := d.Set(context.Background(), bad); err == nil {
			t.Errorf("%s: Set took it", name)
		}
	}
	d.Close()
	if _, err := d.Set(context.Background(), table()); err == nil {
		t.Error("Set works after Close")
	}
	if _, err := d.Counters(); err == nil {
		t.Error("Counters works after Close")
	}
}

func TestCleanupLeavesNothing(t *testing.T) {
	r := newRig(t)
	removed, err := Cleanup(r.d.options.PinDir)
	if err != nil || removed != 2+6 {
		t.Errorf("got %d removed and %v, want 8", removed, err)
	}
	if _, err := os.Stat(r.d.options.PinDir); !os.IsNotExist(err) {
		t.Errorf("the pin folder: got %v, want that it is gone", err)
	}
	r.node.must(func() error {
		i, err := net.InterfaceByName("n0")
		if err != nil {
			return err
		}
		for _, attach := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
			q, err := link.QueryPrograms(link.QueryOptions{Target: i.Index, Attach: attach})
			if err != nil {
				return err
			}
			if len(q.Programs) != 0 {
				return fmt.Errorf("%d programs are attached still", len(q.Programs))
			}
		}
		return nil
	})
	if n, err := Cleanup(filepath.Join(t.TempDir(), "none")); n != 0 || err != nil {
		t.Errorf("without a folder: got %d and %v", n, err)
	}
}

func TestTheMTUIsTheSmallestOfTheInterfaces(t *testing.T) {
	if got := smallestMTU([]netInterface{{mtu: 9000}, {mtu: 1400}, {mtu: 1500}}); got != 1400 {
		t.Errorf("got %d, want 1400", got)
	}
	r := newRig(t)
	if err := r.node.links.LinkSetMTU(r.node.link("n0"), 1300); err != nil {
		t.Fatal(err)
	}
	if c := r.set(); c != (dataplane.Changes{Written: 1}) {
		t.Errorf("got %+v, want the config written", c)
	}
	_, _ = ingress(t, r.d, families[0].wrap(packet{from: cli4, to: vip4, protocol: tcp, flags: syn}.ip()))
	mss := func(n int) []byte { return []byte{2, 4, byte(n >> 8), byte(n)} }
	_, out := egress(t, r.d, packet{from: back4, to: cli4, protocol: tcp, flags: syn | ack, options: mss(1260)}.frame())
	expect(t, "answer", tcxNext, out, tcxNext, packet{from: vip4, to: cli4, protocol: tcp, flags: syn | ack, options: mss(1300 - 40 - 40)}.frame())
}
