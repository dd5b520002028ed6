package load

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Source ports that Ports goes through, in turn.
const (
	firstPort = 1500
	portCount = 64000
)

// ServiceOf tells which of the soak's services an address belongs to. The
// frontends of service k are 198.18.k.x, its backends 10.99.k.x.
func ServiceOf(a [4]byte) byte { return a[2] }

// paced calls do at the rate until the time is up. What falls behind is made
// up for, without a pause.
func (w *worker) paced(do func()) {
	begin := now()
	every := int64(time.Second) / int64(max(w.Rate, 1))
	for due := begin; due < begin+int64(w.For); due += every {
		if early := due - now(); early > 0 {
			t := unix.NsecToTimespec(early)
			_ = unix.Nanosleep(&t, nil)
		}
		do()
	}
}

// soak keeps connections open, each asked again and again, and makes new ones.
func (w *worker) soak() {
	open := w.openMany()
	w.result.OpenFailures = map[string]int{}
	turn := 0
	w.paced(func() {
		took, err := w.connectAndIdentify()
		if err != nil {
			w.fail(err)
		} else {
			w.result.Count++
			w.result.Latency.Record(took)
		}
		if turn++; len(open) > 0 {
			o := open[turn%len(open)]
			if err := w.askOpen(o); err != nil {
				w.result.OpenFailures[err.Error()]++
				o.broken = true
			}
		}
	})
	for _, o := range open {
		closeSocket(o.fd)
	}
}

// held is a connection that stays open.
type held struct {
	fd      int
	service byte
	broken  bool
}

func (w *worker) openMany() (all []*held) {
	targets := w.targets
	for i, t := range w.OpenTargets {
		if i == 0 {
			targets = nil
		}
		targets = append(targets, sockaddr(t))
	}
	for i := range w.Open {
		fd, err := open(unix.SOCK_STREAM)
		to := targets[i%len(targets)]
		if err == nil {
			err = step("open: connect", connect(fd, to))
		}
		if err != nil {
			w.fail(err)
			closeSocket(fd)
			continue
		}
		all = append(all, &held{fd: fd, service: ServiceOf(to.Addr)})
	}
	return all
}

func (w *worker) askOpen(o *held) error {
	if o.broken {
		return nil // counted once
	}
	if err := w.ask(o.fd, askIdentity, identitySize); err != nil {
		return step("open", err)
	}
	w.check(o.service)
	w.result.OpenCount++
	return nil
}

func (w *worker) check(service byte) {
	if ServiceOf(w.identity().Addr().As4()) != service {
		w.result.Wrong++
	}
}

func (w *worker) connectAndIdentify() (time.Duration, error) {
	fd, err := open(unix.SOCK_STREAM)
	if err != nil {
		return 0, err
	}
	defer closeSocket(fd)
	to := w.next()
	start := now()
	if err := connect(fd, to); err != nil {
		return 0, step(fmt.Sprintf("connect to service %d", ServiceOf(to.Addr)), err)
	}
	if err := w.ask(fd, askIdentity, identitySize); err != nil {
		return 0, err
	}
	w.check(ServiceOf(to.Addr))
	return time.Duration(now() - start), nil
}

// ports uses each source port again as soon as its turn comes. The server ends
// the connections, so that the old one still waits there for late packets.
func (w *worker) ports() {
	turn := 0
	one := 1
	w.paced(func() {
		took, err := func() (time.Duration, error) {
			fd, err := socket(unix.SOCK_STREAM)
			if err != nil {
				return 0, step("socket", err)
			}
			defer closeSocket(fd)
			port := uint16(firstPort + turn%portCount)
			turn++
			if err := giveUpAfter(fd, patience); err != nil {
				return 0, step("set socket option", err)
			}
			if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, one); err != nil {
				return 0, step("set socket option", err)
			}
			if err := bind(fd, &unix.RawSockaddrInet4{Family: unix.AF_INET, Port: port<<8 | port>>8}); err != nil {
				return 0, step("bind", err)
			}
			start := now()
			if err := connect(fd, w.next()); err != nil {
				return 0, step("connect", err)
			}
			if err := w.ask(fd, askLast, 1); err != nil {
				return 0, err
			}
			took := time.Duration(now() - start)
			if n, err := read(fd, w.buffer[:1]); err != nil || n != 0 {
				return 0, step("read the end", err)
			}
			return took, nil
		}()
		if err != nil {
			w.fail(err)
			return
		}
		w.result.Count++
		w.result.Latency.Record(took)
	})
}
