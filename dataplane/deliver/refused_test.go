package deliver

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
)

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
