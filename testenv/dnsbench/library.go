package dnsbench

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// libraryZone is a server as one writes it first: prebuilt records in a map.
type libraryZone struct {
	records map[string]map[uint16][]dns.RR
	soa     dns.RR
}

func newLibraryZone(names int) (*libraryZone, error) {
	z := &libraryZone{records: map[string]map[uint16][]dns.RR{}}
	add := func(format string, values ...any) error {
		rr, err := dns.NewRR(fmt.Sprintf(format, values...))
		if err != nil {
			return fmt.Errorf("make a record: %w", err)
		}
		h := rr.Header()
		if z.records[h.Name] == nil {
			z.records[h.Name] = map[uint16][]dns.RR{}
		}
		z.records[h.Name][h.Rrtype] = append(z.records[h.Name][h.Rrtype], rr)
		return nil
	}
	for i := range names {
		if err := add("%s.%s. 5 IN A %s", hostName(i), domain, hostAddress(i)); err != nil {
			return nil, err
		}
		if err := add("_http._tcp.%s.%s. 5 IN SRV 0 1 80 %s.%s.", hostName(i), domain, hostName(i), domain); err != nil {
			return nil, err
		}
	}
	var err error
	z.soa, err = dns.NewRR(domain + ". 5 IN SOA ns." + domain + ". hostmaster." + domain + ". 1 60 60 86400 5")
	return z, err
}

func (z *libraryZone) ServeDNS(w dns.ResponseWriter, r *dns.Msg) {
	m := new(dns.Msg).SetReply(r)
	m.Authoritative = true
	if len(r.Question) == 1 {
		sets := z.records[strings.ToLower(r.Question[0].Name)]
		m.Answer = sets[r.Question[0].Qtype]
		if sets == nil {
			m.Rcode = dns.RcodeNameError
		}
		if len(m.Answer) == 0 {
			m.Ns = []dns.RR{z.soa}
		}
	}
	w.WriteMsg(m)
}

// serveLibrary runs until its input is closed.
func (j *childJob) serveLibrary() error {
	z, err := newLibraryZone(j.Names)
	if err != nil {
		return err
	}
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		if outer := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) }); outer != nil {
			return outer
		}
		return err
	}}
	for range 2 {
		conn, err := config.ListenPacket(context.Background(), "udp", j.Listen.String())
		if err != nil {
			return err
		}
		go (&dns.Server{PacketConn: conn, Handler: z}).ActivateAndServe()
	}
	listener, err := config.Listen(context.Background(), "tcp", j.Listen.String())
	if err != nil {
		return err
	}
	go (&dns.Server{Listener: listener, Handler: z, MaxTCPQueries: -1}).ActivateAndServe()
	fmt.Println("{}")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}
