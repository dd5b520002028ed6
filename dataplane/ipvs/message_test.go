package ipvs

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

func TestMessagesAreReadAsTheyAreWritten(t *testing.T) {
	header := make([]byte, genericHeader)
	for _, at := range []string{"198.18.0.1:80", "[fd00::1]:53"} {
		v := virtual{UDP: at[0] == '[', At: netip.MustParseAddrPort(at)}
		want := &service{scheduler: "mh", flags: svcMark | svcFallback | svcPersistent, timeout: 600, destinations: map[netip.AddrPort]uint32{}}
		got, s, _, err := parseService(append(header, describe(v, want).Serialize()...))
		if err != nil || got != v || !reflect.DeepEqual(s, want) {
			t.Errorf("%s: got %s %+v, %v, want %+v", at, got, s, err, want)
		}
		d, err := parseDestination(append(header, describeDestination(v.At, 7).Serialize()...), v.At.Addr().Is6())
		if err != nil || d.at != v.At || d.weight != 7 {
			t.Errorf("destination %s: got %+v, %v", at, d, err)
		}
	}
	byMark := nl.NewRtAttr(attrService|unix.NLA_F_NESTED, nil)
	byMark.AddRtAttr(svcFamily, nl.Uint16Attr(unix.AF_INET))
	byMark.AddRtAttr(svcFirewall, nl.Uint32Attr(5))
	if _, _, _, err := parseService(append(header, byMark.Serialize()...)); !errors.Is(err, errNotByAddress) {
		t.Errorf("a service by firewall mark: got %v", err)
	}
	for _, bad := range [][]byte{nil, header, append(header, 1, 2, 3)} {
		if _, _, _, err := parseService(bad); err == nil {
			t.Errorf("%v was read", bad)
		}
		if _, err := parseDestination(bad, false); err == nil {
			t.Errorf("%v was read", bad)
		}
	}
}

func TestConnectionsAreRead(t *testing.T) {
	for line, want := range map[string]connection{
		"TCP 0A500063 D2F0 C612000A 0050 0A50000B 1F90 ESTABLISHED     899": {
			netip.MustParseAddrPort("10.80.0.99:54000"), virtual{At: netip.MustParseAddrPort("198.18.0.10:80")}, netip.MustParseAddrPort("10.80.0.11:8080"),
		},
		"UDP [fd00:0000:0000:0000:0000:0000:0000:0001] 1000 [fd77:0000:0000:0000:0000:0000:0000:000a] 0035 [fd00:0000:0000:0000:0000:0000:0000:0011] 14E9 UDP 300": {
			netip.MustParseAddrPort("[fd00::1]:4096"), virtual{UDP: true, At: netip.MustParseAddrPort("[fd77::a]:53")}, netip.MustParseAddrPort("[fd00::11]:5353"),
		},
	} {
		if got, ok := parseConnection(line); !ok || got != want {
			t.Errorf("%s: got %+v, %t", line, got, ok)
		}
	}
	for _, line := range []string{"", "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData", "TCP 0A5 1 C612000A 0050 0A50000B 1F90 X 1", "TCP 0A500063 D2F0F C612000A 0050 0A50000B 1F90 X 1", "SCTP 0A500063 D2F0 C612000A 0050 0A50000B 1F90 X 1"} {
		if got, ok := parseConnection(line); ok {
			t.Errorf("%q was read as %+v", line, got)
		}
	}
}

func TestListingIsRead(t *testing.T) {
	for line, want := range map[string]virtual{
		"TCP  C612000A:0050 wrr persistent 600 FFFFFFFF":              {At: netip.MustParseAddrPort("198.18.0.10:80")},
		"UDP  [fd77:0000:0000:0000:0000:0000:0000:000a]:0035 rr ":     {UDP: true, At: netip.MustParseAddrPort("[fd77::a]:53")},
		"Prot LocalAddress:Port Scheduler Flags":                      {},
		"FWM  00000005 rr ":                                           {},
		"  -> RemoteAddress:Port Forward Weight ActiveConn InActConn": {},
		"IP Virtual Server version 1.2.1 (size=4096)":                 {},
		"SCTP C612000A:0050 rr ":                                      {},
		"TCP  C612000A rr x":                                          {},
	} {
		if got, ok := parseListedService(line); ok != want.At.IsValid() || ok && got != want {
			t.Errorf("%q: got %s, %t", line, got, ok)
		}
	}
	for line, want := range map[string]string{
		"  -> 0A50000B:1F90      Masq    7      0          0         ":                               "10.80.0.11:8080 7",
		"  -> [fd00:0000:0000:0000:0000:0000:0000:0011]:14E9      Route    1      0          0     ": "[fd00::11]:5353 4294967295",
		"  -> RemoteAddress:Port Forward Weight ActiveConn InActConn":                                "",
		"TCP  C612000A:0050 wrr x": "",
	} {
		got := ""
		if at, weight, ok := parseListedDestination(line); ok {
			got = fmt.Sprint(at, " ", weight)
		}
		if got != want {
			t.Errorf("%q: got %s, want %s", line, got, want)
		}
	}
}

func TestSysctlsAreSetAndPutBackAsTheyWere(t *testing.T) {
	dir := t.TempDir()
	s := sysctls{dir: dir, file: filepath.Join(t.TempDir(), "kept")}
	now := func() string {
		a, _ := os.ReadFile(filepath.Join(dir, "a"))
		b, _ := os.ReadFile(filepath.Join(dir, "b"))
		return strings.TrimSpace(string(a)) + " " + strings.TrimSpace(string(b))
	}
	for name, value := range map[string]string{"a": "5\n", "b": "1\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(value), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	wanted := map[string]string{"a": "1", "b": "1", "missing": "1"}
	for i, want := range []int{1, 0} {
		if n, err := s.set(wanted); err != nil || n != want || now() != "1 1" {
			t.Errorf("set %d: changed %d, %v, now %s", i, n, err, now())
		}
	}
	os.WriteFile(filepath.Join(dir, "a"), []byte("7"), 0o600) // somebody else, meanwhile
	if n, err := s.set(wanted); err != nil || n != 1 {
		t.Errorf("set after a change: %d, %v", n, err)
	}
	if n, err := s.restore(); err != nil || n != 1 || now() != "5 1" {
		t.Errorf("restore: %d, %v, now %s", n, err, now())
	}
	if n, err := s.restore(); err != nil || n != 0 {
		t.Errorf("restore again: %d, %v", n, err)
	}
	os.WriteFile(s.file, []byte("{"), 0o600)
	if _, err := s.set(wanted); err == nil {
		t.Error("a damaged file was taken for what the sysctls were")
	}
	if _, err := (sysctls{dir: dir}).set(wanted); err != nil || now() != "1 1" {
		t.Errorf("without a file: %v, now %s", err, now())
	}
}

func TestReuseModeFollowsTheKernel(t *testing.T) {
	for release, want := range map[string]string{"4.18.0-553.el8": "0", "5.8.18": "0", "5.9.0-rc1": "1", "6.1.0-56-cloud-amd64": "1", "10.0": "1", "odd": "1"} {
		if got := settings(release)["conn_reuse_mode"]; got != want {
			t.Errorf("%s: got %s, want %s", release, got, want)
		}
	}
}

func TestOptionsNameTheWrongField(t *testing.T) {
	for want, o := range map[string]Options{
		"Source4 fd00::1": {Source4: netip.MustParseAddr("fd00::1")},
		"Source6 10.0.0.": {Source6: netip.MustParseAddr("10.0.0.1")},
	} {
		if err := o.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	if err := (Options{}).Validate(); err != nil {
		t.Error(err)
	}
}
