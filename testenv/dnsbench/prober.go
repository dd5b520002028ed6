package dnsbench

import (
	"context"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// probes are what a client at a steady pace saw.
type probes struct {
	sent, answered int
	took           []time.Duration
	// age is how old the answers were, where the name tells the time.
	age []time.Duration
}

func quantile(all []time.Duration, q float64) time.Duration {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(all))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

// probe asks for a name so often a second until ctx ends, and a little longer
// for the last answers.
func (s *server) probe(ctx context.Context, name string, perSecond int) (p probes, err error) {
	conn, err := s.dial()
	if err != nil {
		return p, err
	}
	defer conn.Close()
	var mu sync.Mutex // guards p and sent
	var sent [1 << 16]time.Time
	done := make(chan struct{})
	go func() {
		defer close(done)
		buffer := make([]byte, 4096)
		for {
			n, err := conn.Read(buffer)
			if err != nil {
				return
			}
			at := time.Now()
			mu.Lock()
			if id := int(buffer[0])<<8 | int(buffer[1]); n > 12 && !sent[id].IsZero() {
				p.answered++
				p.took = append(p.took, at.Sub(sent[id]))
				if age, ok := ageOf(buffer[:n], sent[id]); ok {
					p.age = append(p.age, age)
				}
				sent[id] = time.Time{}
			}
			mu.Unlock()
		}
	}()
	err = pace(ctx, conn, name, perSecond, func(id uint16) {
		mu.Lock()
		sent[id] = time.Now()
		p.sent++
		mu.Unlock()
	})
	time.Sleep(200 * time.Millisecond)
	conn.Close()
	<-done
	return p, err
}

func pace(ctx context.Context, conn net.Conn, name string, perSecond int, note func(id uint16)) error {
	packet, err := new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeA).Pack()
	if err != nil {
		return err
	}
	every := time.NewTicker(time.Second / time.Duration(perSecond))
	defer every.Stop()
	for id := uint16(0); ; id++ {
		select {
		case <-ctx.Done():
			return nil
		case <-every.C:
		}
		packet[0], packet[1] = byte(id>>8), byte(id)
		note(id)
		if _, err := conn.Write(packet); err != nil {
			return err
		}
	}
}

// ageOf an answer when it was asked for: its address has the lower bytes of the
// milliseconds of when it was set.
func ageOf(wire []byte, asked time.Time) (time.Duration, bool) {
	var m dns.Msg
	if m.Unpack(wire) != nil || len(m.Answer) != 1 {
		return 0, false
	}
	a, ok := m.Answer[0].(*dns.A)
	if !ok || m.Question[0].Name != clockName+"." {
		return 0, false
	}
	ip := a.A.To4()
	set := uint32(ip[1])<<16 | uint32(ip[2])<<8 | uint32(ip[3])
	passed := (uint32(asked.UnixMilli()) - set) & 0xFFFFFF
	if passed >= 1<<23 { // set after it was asked for
		passed = 0
	}
	return time.Duration(passed) * time.Millisecond, true
}
