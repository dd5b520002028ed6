// Package verdict is what packet filters tell of their verdicts: it reads the
// kernel's packet log, in which they write what they drop. Both filters use it.
package verdict

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// What is logged goes to a group of the kernel's packet log (NFLOG), where
// nobody hears it, or one listener does.
const (
	Group = 0x5745 // "WE"
	Rate  = 10     // packets a second and name
	Burst = 20
	Bytes = 128 // of each packet: all headers
)

// What was decided.
const (
	Dropped  = "drop"
	Accepted = "accept"
	Observed = "observe" // it passed, but would be dropped
)

// Prefix is what the kernel writes before a packet in the log: at most size
// bytes, of which a long name fills the last ones with its beginning.
func Prefix(what, name string, size int) string {
	p := "weir:" + what + ":" + name
	return p[:min(len(p), size)]
}

// Counter is what a rule has matched: packets that open a flow, since those
// that follow are passed before.
type Counter struct {
	Packets uint64
	Bytes   uint64
}

// Drop is a packet that opens a flow and that a rule has dropped, or accepted
// if it is one that logs.
type Drop struct {
	Time time.Time
	// Rule is the policy rule's name, which may be cut short, or dataplane.DefaultDeny,
	// Invalid or Spoofed.
	Rule    string
	Verdict string // Dropped, Accepted or Observed
	Hook    string // input, forward or output
	// In and Out are the numbers of the interfaces in the filter's network
	// namespace; 0: none.
	In, Out int
	// Source and Destination; without ports (0) for other protocols than TCP and
	// UDP, and for fragments but the first.
	Source, Destination netip.AddrPort
	Protocol            uint8 // its number among those of IP
	Length              int   // bytes of the packet, as its header says
}

// Listen hears what is logged in a network namespace, given as a file
// descriptor or 0 for the caller's own, from now on until the context ends;
// then the channel is closed. Packets for which nobody takes the earlier ones
// are lost. One listener for each network namespace can be there.
func Listen(ctx context.Context, netns int, log *slog.Logger) (<-chan Drop, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: netns})
	if err != nil {
		return nil, fmt.Errorf("listen to the packet log: %w", err)
	}
	if err := bind(conn); err != nil {
		conn.Close()
		return nil, fmt.Errorf("listen to the packet log: %w", err)
	}
	out := make(chan Drop, 256)
	go func() {
		defer close(out)
		defer conn.Close()
		stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
		defer stop()
		if err := forward(ctx, conn, out); err != nil {
			log.Warn("the packet log ended", "error", err)
		}
	}()
	return out, nil
}

// forward hands on what is logged until the context ends.
func forward(ctx context.Context, conn *netlink.Conn, out chan<- Drop) error {
	for {
		messages, err := conn.Receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS):
			continue // some were lost
		case err != nil:
			return err
		}
		for _, m := range messages {
			if d, ok := parse(m.Data); ok {
				select {
				case out <- d:
				default:
				}
			}
		}
	}
}

const configure = unix.NFNL_SUBSYS_ULOG<<8 | 1 // NFULNL_MSG_CONFIG

// bind binds the socket to our group, with whole headers and no delay.
func bind(conn *netlink.Conn) error {
	mode := binary.BigEndian.AppendUint32(nil, Bytes)
	for _, a := range [][]netlink.Attribute{
		{{Type: 1, Data: []byte{1}}},          // NFULA_CFG_CMD: bind
		{{Type: 2, Data: append(mode, 2, 0)}}, // NFULA_CFG_MODE: copy packets
		{{Type: 5, Data: []byte{0, 0, 0, 1}}}, // NFULA_CFG_QTHRESH: one by one
	} {
		data, err := netlink.MarshalAttributes(a)
		if err != nil {
			return err
		}
		header := binary.BigEndian.AppendUint16([]byte{unix.AF_UNSPEC, 0}, Group) // struct nfgenmsg
		_, err = conn.Execute(netlink.Message{
			Header: netlink.Header{Type: configure, Flags: netlink.Request | netlink.Acknowledge},
			Data:   append(header, data...),
		})
		if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EPERM) {
			return fmt.Errorf("somebody else listens, or root is missing: %w", err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// parse reads a message of the log; ok is false when it is none of ours.
func parse(data []byte) (d Drop, ok bool) {
	if len(data) < 4 {
		return d, false
	}
	attributes, err := netlink.UnmarshalAttributes(data[4:])
	if err != nil {
		return d, false
	}
	d.Time = time.Now()
	for _, a := range attributes {
		switch {
		case a.Type == 1 && len(a.Data) >= 3: // NFULA_PACKET_HDR
			switch a.Data[2] {
			case unix.NF_INET_PRE_ROUTING, unix.NF_INET_LOCAL_IN:
				d.Hook = "input"
			case unix.NF_INET_FORWARD:
				d.Hook = "forward"
			case unix.NF_INET_LOCAL_OUT:
				d.Hook = "output"
			}
		case a.Type == 4 && len(a.Data) == 4: // NFULA_IFINDEX_INDEV
			d.In = int(binary.BigEndian.Uint32(a.Data))
		case a.Type == 5 && len(a.Data) == 4: // NFULA_IFINDEX_OUTDEV
			d.Out = int(binary.BigEndian.Uint32(a.Data))
		case a.Type == 9: // NFULA_PAYLOAD
			d.readPacket(a.Data)
		case a.Type == 10: // NFULA_PREFIX
			parts := strings.SplitN(strings.TrimRight(string(a.Data), "\x00"), ":", 3)
			if len(parts) == 3 && parts[0] == "weir" {
				d.Verdict, d.Rule, ok = parts[1], parts[2], true
			}
		}
	}
	return d, ok
}

// readPacket reads the headers of IP and of TCP or UDP.
func (d *Drop) readPacket(p []byte) {
	var source, destination netip.Addr
	fragment := false
	switch {
	case len(p) >= 20 && p[0]>>4 == 4:
		source, _ = netip.AddrFromSlice(p[12:16])
		destination, _ = netip.AddrFromSlice(p[16:20])
		d.Protocol, d.Length = p[9], int(binary.BigEndian.Uint16(p[2:]))
		fragment = binary.BigEndian.Uint16(p[6:])&0x1fff != 0
		p = p[min(int(p[0]&15)*4, len(p)):]
	case len(p) >= 40 && p[0]>>4 == 6:
		source, _ = netip.AddrFromSlice(p[8:24])
		destination, _ = netip.AddrFromSlice(p[24:40])
		d.Length = 40 + int(binary.BigEndian.Uint16(p[4:]))
		d.Protocol, p, fragment = skipExtensions(p[6], p[40:])
	}
	var from, to uint16
	if len(p) >= 4 && !fragment && (d.Protocol == unix.IPPROTO_TCP || d.Protocol == unix.IPPROTO_UDP) {
		from, to = binary.BigEndian.Uint16(p), binary.BigEndian.Uint16(p[2:])
	}
	d.Source, d.Destination = netip.AddrPortFrom(source, from), netip.AddrPortFrom(destination, to)
}

// skipExtensions goes behind the extension headers of IPv6.
func skipExtensions(next uint8, p []byte) (protocol uint8, rest []byte, fragment bool) {
	for range 8 {
		switch next {
		case unix.IPPROTO_HOPOPTS, unix.IPPROTO_ROUTING, unix.IPPROTO_DSTOPTS:
			if len(p) < 8 {
				return next, nil, fragment
			}
			next, p = p[0], p[min(8+int(p[1])*8, len(p)):]
		case unix.IPPROTO_FRAGMENT:
			if len(p) < 8 {
				return next, nil, true
			}
			fragment = binary.BigEndian.Uint16(p[2:])&0xfff8 != 0
			next, p = p[0], p[8:]
		default:
			return next, p, fragment
		}
	}
	return next, nil, fragment
}
