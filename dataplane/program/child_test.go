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
	"time"

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

func sockaddr(a netip.AddrPort, v6 bool) unix.Sockaddr {
	if v6 {
		return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
}

func spell(s unix.Sockaddr) string {
	switch s := s.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(s.Addr), uint16(s.Port)).String()
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(s.Addr), uint16(s.Port)).String()
	default:
		return fmt.Sprintf("%v", s)
	}
}

func (r request) open(v6 bool) (int, error) {
	family, kind := unix.AF_INET, unix.SOCK_STREAM
	if v6 {
		family = unix.AF_INET6
	}
	if r.Network == "udp" {
		kind = unix.SOCK_DGRAM
	}
	protocol := 0
	if r.MPTCP {
		protocol = unix.IPPROTO_MPTCP
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return 0, err
	}
	for _, option := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, option, &unix.Timeval{Sec: 2}); err != nil {
			return fd, err
		}
	}
	if r.Bind.IsValid() {
		return fd, unix.Bind(fd, sockaddr(netip.AddrPortFrom(r.Bind, 0), v6))
	}
	return fd, nil
}

// exchange asks the target and reads its answer, connected or by message.
func (r request) exchange(connect bool) (o outcome) {
	fail := func(step string, err error) outcome {
		o.Err = fmt.Sprintf("%s: %v", step, err)
		var errno unix.Errno
		if errors.As(err, &errno) {
			o.Errno = int(errno)
		}
		return o
	}
	v6 := r.Mapped || r.Target.Addr().Is6()
	fd := r.Socket
	if fd == 0 {
		var err error
		if fd, err = r.open(v6); err != nil {
			return fail("open", err)
		}
	}
	o.Socket = fd
	if !r.Keep {
		defer unix.Close(fd)
	}
	if connect {
		if r.Target.IsValid() {
			if err := unix.Connect(fd, sockaddr(r.Target, v6)); err != nil {
				return fail("connect", err)
			}
		}
		peer, err := unix.Getpeername(fd)
		if err != nil {
			return fail("getpeername", err)
		}
		o.Peer = spell(peer)
		if _, err := unix.Write(fd, []byte("?")); err != nil {
			return fail("write", err)
		}
	} else if err := unix.Sendto(fd, []byte("?"), 0, sockaddr(r.Target, v6)); err != nil {
		return fail("sendto", err)
	}
	buffer := make([]byte, 512)
	n, from, err := unix.Recvfrom(fd, buffer, 0)
	if err != nil {
		return fail("recvfrom", err)
	}
	o.Answer = string(buffer[:n])
	if r.Network == "udp" {
		o.Peer = spell(from)
	}
	return o
}

// read waits for data on an open socket.
func (r request) read() (o outcome) {
	n, err := unix.Read(r.Socket, make([]byte, 512))
	o.Answer = fmt.Sprint(n)
	var errno unix.Errno
	if errors.As(err, &errno) {
		o.Err, o.Errno = err.Error(), int(errno)
	}
	return o
}

// bind binds a socket to the address alone.
func (r request) bind() (o outcome) {
	fd, err := r.open(r.Bind.Is6())
	unix.Close(fd)
	var errno unix.Errno
	if errors.As(err, &errno) {
		o.Err, o.Errno = err.Error(), int(errno)
	}
	return o
}

// connect opens Count sockets, connects them and closes them.
func (r request) connect() error {
	for range r.Count {
		fd, err := r.open(r.Target.Addr().Is6())
		if err == nil {
			err = unix.Connect(fd, sockaddr(r.Target, r.Target.Addr().Is6()))
		}
		unix.Close(fd)
		if err != nil {
			return err
		}
	}
	return nil
}

// churn connects again and again for Count milliseconds. It returns the
// failures, and last one outcome that tells how many connections it made.
func (r request) churn() (failures []outcome) {
	made := 0
	for end := time.Now().Add(time.Duration(r.Count) * time.Millisecond); time.Now().Before(end); made++ {
		if o := r.exchange(true); o.Err != "" || !strings.HasSuffix(o.server(), fmt.Sprintf(":%d", r.Target.Port())) {
			failures = append(failures, o)
		}
	}
	return append(failures, outcome{Socket: made})
}

// childMain is what the test binary does as a child.
func childMain() {
	if err := runChild(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}
