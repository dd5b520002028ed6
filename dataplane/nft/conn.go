package nft

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
)

const (
	// A batch goes to the kernel in one message, which must fit into the send
	// buffer: about 130 bytes for each IPv6 prefix. The answers must fit into
	// the receive buffer, one for each message of the batch. Both are bounds:
	// the kernel allocates what is used.
	sendBuffer    = 256 << 20
	receiveBuffer = 32 << 20
	// patience bounds one Set's talk with the kernel, which takes milliseconds,
	// and about a second for 100,000 addresses.
	patience = 60 * time.Second
)

// link is one conversation with the kernel.
type link struct {
	*nftables.Conn
	socket *netlink.Conn
	dirty  bool // an answer may be on its way that nobody has read
}

// open gives the conversation that the last Set or Learn has left, or a new
// one: to close a socket takes the kernel some milliseconds, since it waits for
// every CPU to let go of it. It needs f.mu.
func (f *Filter) open(ctx context.Context) (*link, error) {
	l := f.kept
	f.kept = nil
	if l == nil {
		return f.dial(ctx)
	}
	if err := errors.Join(ctx.Err(), l.socket.SetDeadline(time.Now().Add(patience))); err != nil {
		_ = l.CloseLasting()
		return nil, err
	}
	return l, nil
}

// leave keeps the conversation for the next one, if all of it went well. It
// needs f.mu.
func (f *Filter) leave(l *link, err error) {
	if err != nil || l.dirty {
		_ = l.CloseLasting()
		return
	}
	f.kept = l
}

// Close gives back the socket that a Filter keeps between two calls. The rules
// stay, and the Filter can go on to be used.
func (f *Filter) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := f.kept
	f.kept = nil
	if l == nil {
		return nil
	}
	return l.CloseLasting()
}

// dial opens a netlink socket, to be closed with CloseLasting.
func (f *Filter) dial(ctx context.Context) (*link, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	l := &link{}
	prepare := func(s *netlink.Conn) error {
		l.socket = s
		return errors.Join(s.SetReadBuffer(receiveBuffer), s.SetWriteBuffer(sendBuffer), s.SetDeadline(time.Now().Add(patience)))
	}
	var err error
	l.Conn, err = nftables.New(nftables.AsLasting(), nftables.WithNetNSFd(f.netns), nftables.WithSockOptions(prepare))
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", inWords(err))
	}
	return l, nil
}

// send gives the kernel a batch, which it takes as a whole or not at all. It
// acknowledges the last message, and tells of every one that it refuses.
func (l *link) send(messages []netlink.Message) error {
	edge := func(typ netlink.HeaderType) netlink.Message {
		return netlink.Message{
			Header: netlink.Header{Type: typ, Flags: netlink.Request},
			Data:   []byte{unix.AF_UNSPEC, 0, 0, unix.NFNL_SUBSYS_NFTABLES}, // struct nfgenmsg
		}
	}
	messages[len(messages)-1].Header.Flags |= netlink.Acknowledge
	batch := make([]netlink.Message, 0, len(messages)+2)
	batch = append(append(append(batch, edge(unix.NFNL_MSG_BATCH_BEGIN)), messages...), edge(unix.NFNL_MSG_BATCH_END))
	if _, err := l.socket.SendMessages(batch); err != nil {
		return err
	}
	if _, err := l.socket.Receive(); err != nil {
		return errors.Join(err, l.drain())
	}
	return nil
}

// drain drops the answers that are there: all of them, since the kernel has
// done with a batch when sending it returns.
func (l *link) drain() error {
	raw, err := l.socket.SyscallConn()
	if err != nil {
		return fmt.Errorf("reach netlink socket: %w", err)
	}
	buffer := make([]byte, 64)
	return raw.Control(func(fd uintptr) {
		for err == nil || errors.Is(err, unix.EINTR) || errors.Is(err, unix.ENOBUFS) {
			_, _, err = unix.Recvfrom(int(fd), buffer, unix.MSG_DONTWAIT)
		}
	})
}

// generation is the number of the namespace's ruleset: every change by anybody
// makes it one more. It is never 0.
func (l *link) generation() (uint32, error) {
	const get = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETGEN
	header := []byte{unix.AF_UNSPEC, 0, 0, 0} // struct nfgenmsg
	_, err := l.socket.Send(netlink.Message{Header: netlink.Header{Type: get, Flags: netlink.Request}, Data: header})
	if err != nil {
		return 0, fmt.Errorf("ask for generation: %w", inWords(err))
	}
	if err := l.widen(); err != nil {
		return 0, err
	}
	answer, err := l.socket.Receive()
	if err != nil {
		return 0, fmt.Errorf("read generation: %w", inWords(err))
	}
	for _, m := range answer {
		if len(m.Data) < len(header) {
			continue
		}
		attributes, err := netlink.UnmarshalAttributes(m.Data[len(header):])
		if err != nil {
			return 0, fmt.Errorf("read generation: %w", err)
		}
		for _, a := range attributes {
			if a.Type == unix.NFTA_GEN_ID && len(a.Data) == 4 {
				return binary.BigEndian.Uint32(a.Data), nil
			}
		}
	}
	return 0, errors.New("read generation: the kernel's answer has none")
}

// widen looks at a waiting message with a large buffer. The kernel takes the
// largest buffer that it has seen for the size of its answers, and walks a set
// from its beginning for every one of them: with the small buffers of the
// library a listing takes several times as long.
func (l *link) widen() error {
	raw, err := l.socket.SyscallConn()
	if err != nil {
		return fmt.Errorf("reach netlink socket: %w", err)
	}
	var failed error
	buffer := make([]byte, 32<<10)
	err = raw.Read(func(fd uintptr) bool {
		_, _, failed = unix.Recvfrom(int(fd), buffer, unix.MSG_PEEK|unix.MSG_DONTWAIT)
		return !errors.Is(failed, unix.EAGAIN)
	})
	if err := errors.Join(err, failed); err != nil {
		return fmt.Errorf("read netlink socket: %w", err)
	}
	return nil
}

// Supported tells why nftables cannot be used in the caller's network
// namespace, nil when it can. It makes and removes a table with all that a
// policy needs in one step, so that there is nothing to see of it.
func Supported() error {
	conn, err := (&Filter{}).dial(context.Background())
	if err == nil {
		defer conn.CloseLasting()
		err = try(conn, nil)
	}
	if err != nil {
		return fmt.Errorf("try nftables: %w", err)
	}
	return nil
}

// try makes and removes a table with the match, and without one with all that
// every kernel needs.
func try(conn *link, match []expr.Any) error {
	w := newWriter(conn)
	w.table = dataplane.TableName + "-probe"
	w.addTable()
	any := []api.PortRange{{Protocol: "any"}}
	b := newBuilder(&dataplane.Ruleset{
		Sets: []dataplane.AddressSet{{Name: "probe"}}, Endpoints: []dataplane.EndpointSet{{Name: "ends"}}, Dynamic: []dataplane.DynamicSet{{Name: "learnt"}},
		Zoned: "probe", Inside: "probe",
		Input:  []dataplane.FilterRule{{Name: "rate", Rate: 1, Ports: any}, {Name: "ends", Endpoints: "ends"}},
		Output: []dataplane.FilterRule{{Name: "learnt", To: "learnt", Ports: any}},
	}, Observe, nil)
	if err := b.buildRules(nil); err != nil {
		return err
	}
	if match != nil {
		b.content = newContent()
		b.chains["probe"] = nftables.ChainPolicyAccept
		b.add("probe", "probe", match)
	}
	w.addSets(newContent(), b.content)
	w.changeRules(newContent(), b.content)
	w.delTable()
	return w.flush()
}

// inWords says what the kernel's refusals mean.
func inWords(err error) error {
	switch {
	case errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES):
		return fmt.Errorf("root (CAP_NET_ADMIN) is needed: %w", err)
	case errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EAFNOSUPPORT):
		return fmt.Errorf("this kernel has no nftables, or not all of it (modules nf_tables, nft_ct): %w", err)
	case errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.EMSGSIZE):
		return fmt.Errorf("the rules do not fit into the netlink socket's buffers: %w", err)
	case errors.Is(err, unix.ETIMEDOUT):
		return fmt.Errorf("the kernel did not answer: %w", err)
	default:
		return err
	}
}
