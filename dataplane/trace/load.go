package trace

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/weirproject/weir/bpf"
	"github.com/weirproject/weir/dataplane/internal/pin"
)

// balancerLayout starts the names of the folders with the balancer's maps.
const balancerLayout = "vip-"

// constantsMap is where the compiler puts what is set before loading.
const constantsMap = ".rodata"

// hooks are what is attached: the program, at a cgroup or at a tracepoint, and
// what cannot be told without it.
var hooks = []struct {
	program string
	cgroup  ebpf.AttachType // of a tracepoint: none
	without string
	needed  bool
}{
	{"weir_tcp_state", ebpf.AttachNone, "TCP connections", true},
	{"weir_drop", ebpf.AttachNone, "dropped packets", true},
	{"weir_tcp_retransmit", ebpf.AttachNone, "retransmits of open connections", false},
	{"weir_attempt4", ebpf.AttachCGroupInet4Connect, "IPv4 connections that fail before a packet is sent", false},
	{"weir_attempt6", ebpf.AttachCGroupInet6Connect, "IPv6 connections that fail before a packet is sent", false},
	{"weir_datagram_sent", ebpf.AttachCGroupInetEgress, "UDP that is sent", false},
	{"weir_datagram_received", ebpf.AttachCGroupInetIngress, "UDP that is received", false},
}

// load loads and attaches each program; those that are not needed may fail.
func (t *Tracer) load(o Options) error {
	spec, err := bpf.LoadTrace()
	if err != nil {
		return fmt.Errorf("read the eBPF object: %w", err)
	}
	if err := t.constants(o, spec); err != nil {
		return err
	}
	shared, err := balancerMaps(o.PinDir, spec)
	if err != nil {
		return err
	}
	defer closeAll(shared)
	if err := t.makeMaps(spec, shared); err != nil {
		return err
	}
	for _, h := range hooks {
		if err := t.attach(spec, h.program, h.cgroup, o.Cgroup); err != nil {
			if h.needed {
				return fmt.Errorf("trace %s: %w", h.without, err)
			}
			t.missing = append(t.missing, fmt.Sprintf("%s: %v", h.without, err))
		}
	}
	return nil
}

// makeMaps makes the maps once, for all programs. Constants are each program's own.
func (t *Tracer) makeMaps(spec *ebpf.CollectionSpec, shared map[string]*ebpf.Map) error {
	only := spec.Copy()
	clear(only.Programs)
	delete(only.Maps, constantsMap)
	clear(only.Variables)
	made, err := ebpf.NewCollectionWithOptions(only, ebpf.CollectionOptions{MapReplacements: shared})
	if err != nil {
		return fmt.Errorf("make the maps: %w", err)
	}
	t.maps = made.Maps
	return nil
}

// attach loads one program against the maps and attaches it. The link alone keeps
// it: it is gone when the link is closed, or this process ends.
func (t *Tracer) attach(spec *ebpf.CollectionSpec, name string, at ebpf.AttachType, cgroup string) error {
	only := spec.Copy()
	for other := range only.Programs {
		if other != name {
			delete(only.Programs, other)
		}
	}
	loaded, err := ebpf.NewCollectionWithOptions(only, ebpf.CollectionOptions{MapReplacements: t.maps})
	if err != nil {
		return fmt.Errorf("load the program %s: %w", name, err)
	}
	defer loaded.Close()
	var l link.Link
	if p := loaded.Programs[name]; p.Type() == ebpf.Tracing {
		l, err = link.AttachTracing(link.TracingOptions{Program: p})
	} else {
		l, err = attachCgroup(p, at, cgroup)
	}
	if err != nil {
		return fmt.Errorf("attach the program %s: %w", name, err)
	}
	t.links = append(t.links, l)
	return nil
}

// attachCgroup makes a link in any case: the older way would outlive the process.
func attachCgroup(program *ebpf.Program, at ebpf.AttachType, path string) (link.Link, error) {
	cgroup, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer cgroup.Close()
	return link.AttachRawLink(link.RawLinkOptions{Target: int(cgroup.Fd()), Program: program, Attach: at})
}

// balancerMaps opens the balancer's maps that its present layout has pinned, and
// gives the others, if there is no balancer, the least size.
func balancerMaps(pinDir string, spec *ebpf.CollectionSpec) (map[string]*ebpf.Map, error) {
	balance, err := bpf.LoadBalance()
	if err != nil {
		return nil, fmt.Errorf("read the balancer's eBPF object: %w", err)
	}
	dir := filepath.Join(pinDir, balancerLayout+pin.LayoutTag(balance))
	found := map[string]*ebpf.Map{}
	for _, name := range []string{
		bpf.TraceMapPeers, bpf.TraceMapDisplacedPeers, bpf.TraceMapCorrespondents, bpf.TraceMapDisplacedCorrespondents, bpf.TraceMapBackends,
	} {
		m, err := ebpf.LoadPinnedMap(filepath.Join(dir, name), nil)
		switch {
		case errors.Is(err, os.ErrNotExist):
			spec.Maps[name].MaxEntries = 1
			continue
		case err != nil:
			closeAll(found)
			return nil, fmt.Errorf("open the balancer's map %s: %w", name, err)
		}
		found[name] = m
		spec.Maps[name].MaxEntries = m.MaxEntries()
	}
	return found, nil
}

func closeAll(all map[string]*ebpf.Map) {
	for _, m := range all {
		m.Close()
	}
}
