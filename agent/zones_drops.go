package agent

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane/nft"
)

const (
	// dropsKept are the last packets that the agent can tell of.
	dropsKept = 500
	// dropsRetry is how long after a failure the packet log is tried again.
	dropsRetry = 10 * time.Second
)

// dropLog has what the packet filter has reported.
type dropLog struct {
	mu     sync.Mutex // guards what follows
	last   []api.ZoneDrop
	heard  map[chan api.ZoneDrop]bool
	closed bool
	fault  string // why nothing is heard
}

// put keeps a packet and tells those who follow; one who is slow loses it.
func (l *dropLog) put(d api.ZoneDrop) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.last) == dropsKept {
		l.last = slices.Delete(l.last, 0, dropsKept/10)
	}
	l.last = append(l.last, d)
	for ch := range l.heard {
		select {
		case ch <- d:
		default:
		}
	}
}

// recent are the packets kept, the oldest first, or why there are none.
func (l *dropLog) recent() ([]api.ZoneDrop, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.last) == 0 && l.fault != "" {
		return nil, fmt.Errorf("the packet log cannot be heard: %s", l.fault)
	}
	return slices.Clone(l.last), nil
}

// follow hears of packets from now on until stop is called, or the agent ends.
func (l *dropLog) follow() (ch chan api.ZoneDrop, stop func()) {
	ch = make(chan api.ZoneDrop, 256)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		close(ch)
		return ch, func() {}
	}
	if l.heard == nil {
		l.heard = map[chan api.ZoneDrop]bool{}
	}
	l.heard[ch] = true
	return ch, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.heard, ch)
	}
}

func (l *dropLog) setFault(err error) (news bool) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	news, l.fault = text != "" && text != l.fault, text
	return news
}

// close ends those who follow.
func (l *dropLog) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for ch := range l.heard {
		close(ch)
	}
	l.heard = nil
}

// hearDrops listens to the packet filter until ctx ends.
func (c *zonesComponent) hearDrops(ctx context.Context) {
	defer c.drops.close()
	for c.filter != nil && ctx.Err() == nil {
		all, err := c.filter.Drops(ctx)
		if c.drops.setFault(err) {
			c.agent.log.Warn("the packet log cannot be heard: weir zone drops shows nothing", "component", "zones", "error", err)
		}
		if err == nil {
			for d := range all {
				c.drops.put(c.named(d))
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(dropsRetry):
		}
	}
}

// named says whose the packet's addresses are.
func (c *zonesComponent) named(d nft.Drop) api.ZoneDrop {
	out := api.ZoneDrop{
		Time: d.Time, Rule: d.Rule, Verdict: d.Verdict, Hook: d.Hook, In: interfaceName(d.In), Out: interfaceName(d.Out),
		Protocol: protocolName(d.Protocol), From: d.Source, To: d.Destination, Length: d.Length,
	}
	if s := c.agent.snapshot.Load(); s != nil {
		view := c.viewOf(s)
		out.FromIs, out.ToIs = view.Whois(d.Source.Addr()), view.Whois(d.Destination.Addr())
	}
	return out
}

func interfaceName(index int) string {
	if index == 0 {
		return ""
	}
	i, err := net.InterfaceByIndex(index)
	if err != nil {
		return fmt.Sprintf("#%d", index) // it is gone
	}
	return i.Name
}

func protocolName(number uint8) string {
	switch number {
	case 1:
		return "icmp"
	case 6:
		return "tcp"
	case 17:
		return "udp"
	case 58:
		return "icmpv6"
	case 132:
		return "sctp"
	}
	return fmt.Sprintf("ip/%d", number)
}
