package program

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/bpf"
	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/dataplane/internal/inet"
)

// tcpStates by the numbers of the kernel's net/tcp_states.h.
var tcpStates = [...]string{
	1: "established", 2: "syn-sent", 3: "syn-recv", 4: "fin-wait-1", 5: "fin-wait-2", 6: "time-wait", 7: "close",
	8: "close-wait", 9: "last-ack", 10: "listen", 11: "closing", 12: "new-syn-recv",
}

// Connections implements dataplane.ConnectionLister. It goes through every
// process of the cgroup: it is for people, not for a loop.
func (b *Balancer) Connections() ([]dataplane.Connection, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, errors.New("list connections: the balancer is closed")
	}
	byCookie := map[uint64]*dataplane.Connection{}
	for _, name := range []string{bpf.BalanceMapPeers, bpf.BalanceMapCorrespondents} {
		if err := readPeers[uint32](b, name, byCookie); err != nil {
			return nil, err
		}
	}
	for _, name := range []string{bpf.BalanceMapDisplacedPeers, bpf.BalanceMapDisplacedCorrespondents} {
		if err := readPeers[uint64](b, name, byCookie); err != nil {
			return nil, err
		}
	}
	inodes := map[uint32]*dataplane.Connection{}
	if err := b.inNamespaces(func() error {
		return eachSocket(func(_ int, s *diagSocket) error {
			if c := byCookie[s.cookie()]; c != nil {
				s.describe(c)
				inodes[s.inode] = c
			}
			return nil
		})
	}); err != nil {
		return nil, fmt.Errorf("list connections: %w", err)
	}
	if err := b.findProcesses(inodes); err != nil {
		return nil, fmt.Errorf("list connections: %w", err)
	}
	all := make([]dataplane.Connection, 0, len(byCookie))
	for _, c := range byCookie {
		all = append(all, *c)
	}
	return all, nil
}

// readPeers adds the sockets that a map remembers as open.
func readPeers[K comparable](b *Balancer, name string, all map[uint64]*dataplane.Connection) error {
	names := map[uint32]*entry{}
	for _, e := range b.entries {
		names[e.id] = e
	}
	var cursor ebpf.MapBatchCursor
	keys, values := make([]K, 4096), make([]bpf.BalancePeer, 4096)
	for {
		n, err := b.maps[name].BatchLookup(&cursor, keys, values, nil)
		for _, peer := range values[:n] {
			if peer.Cookie == 0 || peer.BackendId == 0 || peer.BackendId >= uint32(len(b.cells.backends)) {
				continue
			}
			cell := &b.cells.backends[peer.BackendId]
			if cell.Generation != peer.Generation {
				continue // its backend is gone
			}
			c := &dataplane.Connection{
				Frontend: netip.AddrPortFrom(decodeAddress(peer.Vip), inet.Port(peer.VipPortBe)),
				Backend:  netip.AddrPortFrom(decodeAddress(cell.Addr), inet.Port(cell.PortBe)),
			}
			if e := names[cell.Service]; e != nil {
				c.Service = e.name
			}
			all[peer.Cookie] = c
		}
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("list connections: read %s: %w", name, err)
		}
	}
}

func (s *diagSocket) describe(c *dataplane.Connection) {
	c.Client, c.Protocol = s.local(), api.UDP
	if s.protocol == unix.IPPROTO_TCP {
		c.Protocol = api.TCP
		if int(s.state) < len(tcpStates) {
			c.State = tcpStates[s.state]
		}
	}
}

// findProcesses looks through the open files of the cgroup's processes.
func (b *Balancer) findProcesses(inodes map[uint32]*dataplane.Connection) error {
	return eachProcess(b.options.Cgroup, func(pid string) {
		files, err := os.ReadDir(filepath.Join("/proc", pid, "fd"))
		if err != nil {
			return // it has ended
		}
		for _, f := range files {
			target, err := os.Readlink(filepath.Join("/proc", pid, "fd", f.Name()))
			inode, isSocket := strings.CutPrefix(strings.TrimSuffix(target, "]"), "socket:[")
			if err != nil || !isSocket {
				continue
			}
			n, err := strconv.ParseUint(inode, 10, 32)
			if c := inodes[uint32(n)]; err == nil && c != nil {
				c.Process, _ = strconv.Atoi(pid)
				name, _ := os.ReadFile(filepath.Join("/proc", pid, "comm"))
				c.Command = strings.TrimSpace(string(name))
			}
		}
	})
}
