package program

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The traffic of the tests comes from a child process, in a cgroup and a
// network namespace of its own: cgroups are of whole processes. It is this test
// binary again; it reads requests from its stdin and answers on its stdout.

const childVariable = "WEIR_PROGRAM_TEST_CHILD"

type request struct {
	Op        string
	Addresses []string       // addr: on lo
	Listen    netip.AddrPort // serve
	Network   string         // tcp or udp
	Target    netip.AddrPort
	Mapped    bool // use an IPv6 socket for an IPv4 target
	Bind      netip.Addr
	Count     int
	Keep      bool // leave the socket open
	MPTCP     bool
	Socket    int    // to use instead of a new one
	Namespace int    // veth: pid that gets the other end
	Local     string // veth: address with prefix
}

type outcome struct {
	Peer   string // what getpeername or recvfrom tells
	Answer string // by the server: "<its address> <the client's address>"
	Err    string
	Errno  int
	Socket int
}

// server is the part of the answer that names the backend.
func (o outcome) server() string { s, _, _ := strings.Cut(o.Answer, " "); return s }

func (o outcome) client() string { _, c, _ := strings.Cut(o.Answer, " "); return c }

func runChild(in io.Reader, out io.Writer) error {
	encoder := json.NewEncoder(out)
	for decoder := json.NewDecoder(bufio.NewReader(in)); ; {
		var r request
		if err := decoder.Decode(&r); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		results := r.run()
		if err := encoder.Encode(results); err != nil {
			return err
		}
	}
}

func (r request) run() []outcome {
	failed := func(err error) []outcome {
		if err != nil {
			return []outcome{{Err: err.Error()}}
		}
		return nil
	}
	switch r.Op {
	case "addr":
		return failed(addAddresses(r.Addresses))
	case "veth":
		return failed(makeVeth(r.Namespace, r.Local))
	case "veth-address":
		return failed(addressVeth(r.Local))
	case "serve":
		return failed(serve(r.Network, r.Listen))
	case "dial":
		results := make([]outcome, max(r.Count, 1))
		for i := range results {
			results[i] = r.exchange(true)
		}
		return results
	case "send":
		results := make([]outcome, max(r.Count, 1))
		for i := range results {
			results[i] = r.exchange(false)
		}
		return results
	case "connect":
		return failed(r.connect())
	case "churn":
		return r.churn()
	case "read":
		return []outcome{r.read()}
	case "bind":
		return []outcome{r.bind()}
	case "close":
		return failed(unix.Close(r.Socket))
	default:
		return failed(fmt.Errorf("no op %q", r.Op))
	}
}

func addAddresses(all []string) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	for _, a := range all {
		address, err := netlink.ParseAddr(a)
		if err != nil {
			return err
		}
		address.Flags = unix.IFA_F_NODAD
		if err := netlink.AddrAdd(lo, address); err != nil {
			return fmt.Errorf("add %s: %w", a, err)
		}
	}
	return nil
}

func makeVeth(namespace int, local string) error {
	wire := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "weir0"}, PeerName: "weir1", PeerNamespace: netlink.NsPid(namespace)}
	if err := netlink.LinkAdd(wire); err != nil {
		return err
	}
	return addressVeth(local)
}

func addressVeth(local string) error {
	for _, name := range []string{"weir0", "weir1"} {
		l, err := netlink.LinkByName(name)
		if err != nil {
			continue
		}
		address, err := netlink.ParseAddr(local)
		if err != nil {
			return err
		}
		return errors.Join(netlink.AddrAdd(l, address), netlink.LinkSetUp(l))
	}
	return errors.New("no veth here")
}

// serve answers everything with the own address and the client's.
func serve(network string, at netip.AddrPort) error {
	if network == "udp" {
		c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
		if err != nil {
			return err
		}
		go func() {
			buffer := make([]byte, 512)
			for {
				_, from, err := c.ReadFromUDPAddrPort(buffer)
				if err != nil {
					return
				}
				c.WriteToUDPAddrPort(fmt.Appendf(nil, "%s %s", at, from), from)
			}
		}()
		return nil
	}
	l, err := net.Listen("tcp", at.String())
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				buffer := make([]byte, 512)
				for {
					if _, err := c.Read(buffer); err != nil {
						return
					}
					fmt.Fprintf(c, "%s %s", at, c.RemoteAddr())
				}
			}()
		}
	}()
	return nil
}

// childMain is what the test binary does as a child.
func childMain() {
	if err := runChild(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}
