package agent

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/dataplane/answers"
	"github.com/weirproject/weir/dnsproxy"
)

// Values of dns.kernel.
const (
	kernelAuto = "auto"
	kernelOff  = "off"
)

const (
	// beatEvery is how often the program in the kernel is told that the names are
	// right; it stops three seconds after the last time.
	beatEvery = time.Second
	// beatWithin is how long the reconcilers may take for a pass meanwhile: those
	// that hang may have missed that names have gone.
	beatWithin = 2*repairInterval + time.Second
)

// answersComponent has the kernel answer for the DNS proxy, where it can. The
// proxy answers everything by itself too, so what fails here costs time alone.
type answersComponent struct {
	agent *Agent
	dns   *dnsComponent
	// sink is nil until there is a container, or lo is wanted.
	sink atomic.Pointer[answers.Answerer]
	stop func()
	// idle says why there is no sink; unable why the kernel cannot.
	idle, unable string
}

func newAnswers(a *Agent, dns *dnsComponent) *answersComponent {
	k := &answersComponent{agent: a, dns: dns, idle: "not applied yet"}
	a.registry.MustRegister(answersCollector{k})
	return k
}

func (k *answersComponent) backend() string {
	if k.sink.Load() == nil {
		return "off"
	}
	return "tcx"
}

// followsStates: names go with the backends' states, by swap.
func (k *answersComponent) followsStates() bool { return false }

func answersDir() string { return filepath.Join(dataplane.PinRoot, "answers") }

func (k *answersComponent) apply(ctx context.Context, s *api.Snapshot) (changes dataplane.Changes, err error) {
	table, why := k.wanted(s)
	if why == "" && k.sink.Load() == nil {
		if why, err = k.open(table); err != nil {
			return changes, err
		}
	}
	if k.idle = why; why != "" {
		changes.Removed, err = k.remove()
		return changes, err
	}
	sink := k.sink.Load()
	changes, err = sink.Set(ctx, table)
	if err != nil {
		return changes, errors.Join(err, sink.Silence())
	}
	return changes, sink.Beat()
}

// wanted is the table for the kernel, or why it shall have none.
func (k *answersComponent) wanted(s *api.Snapshot) (table answers.Table, why string) {
	k.dns.mu.Lock()
	c := k.dns.config
	k.dns.mu.Unlock()
	if k.dns.proxy == nil || k.dns.stop == nil || k.dns.proxy.Table() == nil {
		return table, "the proxy does not run"
	}
	if c.Kernel == kernelOff {
		return table, "switched off (dns.kernel)"
	}
	flags, open := k.dns.proxy.DirectFlags()
	if !open {
		return table, "the proxy must see every query (dns.access, dns.dnstap)"
	}
	names := k.dns.proxy.Table()
	table = answers.Table{
		Listen: c.listen(), Flags: flags, Zones: names.DirectZones(), Names: directNames{names}, Loopback: c.KernelLo, Uplinks: s.Node.Addresses,
	}
	if s.Policy != nil { // the packet filter does not see what the kernel answers before it
		if table.Clients = k.agent.containerNetworks(s); len(table.Clients) == 0 {
			return table, "the zones let no container ask"
		}
	}
	return table, ""
}

// open loads the program once there is an interface for it, or an earlier agent
// has left one.
func (k *answersComponent) open(table answers.Table) (why string, err error) {
	if k.unable != "" {
		return k.unable, nil
	}
	if n, err := answers.Interfaces(table); err != nil || n == 0 {
		return "no container here", err
	}
	if err := answers.Supported(); err != nil {
		k.unable = err.Error()
		k.agent.log.Info("the kernel cannot answer for the dns proxy", "component", "dns-kernel", "reason", err)
		return k.unable, nil
	}
	sink, err := answers.New(answers.Options{Log: k.agent.log.With("component", "dns-kernel")})
	if err != nil {
		return "", fmt.Errorf("load the program that answers for the DNS proxy: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); k.beat(ctx, sink) }()
	k.stop = func() { cancel(); <-ended }
	k.sink.Store(sink)
	return "", nil
}

// beat keeps the program going as long as the reconcilers do.
func (k *answersComponent) beat(ctx context.Context, sink *answers.Answerer) {
	every := time.NewTicker(beatEvery)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-every.C:
		}
		if !k.agent.Alive(beatWithin) {
			continue
		}
		if err := sink.Beat(); err != nil {
			k.agent.log.Warn("heartbeat failed; the proxy answers alone", "component", "dns-kernel", "error", err)
		}
	}
}

// remove takes everything out of the kernel, also what an earlier agent left.
func (k *answersComponent) remove() (removed int, err error) {
	if err := k.release(); err != nil {
		return 0, err
	}
	if _, err := os.Stat(answersDir()); err != nil {
		return 0, nil
	}
	return answers.Cleanup(answersDir())
}

// release silences the program and lets it go.
func (k *answersComponent) release() error {
	sink := k.sink.Swap(nil)
	if sink == nil {
		return nil
	}
	k.stop()
	return errors.Join(sink.Silence(), sink.Close())
}

// swap gives the proxy another table, and the kernel the difference: what has
// changed leaves the kernel before, and comes back after.
func (k *answersComponent) swap(p *dnsproxy.Proxy, next *dnsproxy.Table) {
	var sink *answers.Answerer
	if k != nil {
		sink = k.sink.Load()
	}
	if sink == nil {
		p.Set(next)
		return
	}
	change := next.DirectSince(p.Table())
	err := sink.Withdraw(change.Gone)
	p.Set(next)
	changed := make([]answers.Name, len(change.Changed))
	for i, d := range change.Changed {
		changed[i] = directName(d)
	}
	if err == nil {
		err = sink.Publish(changed, directNames{next}, next.DirectZones())
	}
	if err != nil {
		k.agent.log.Warn("names could not be changed in the kernel; the proxy answers alone until they are repaired", "component", "dns-kernel", "error", err)
	}
}

func (k *answersComponent) detail() string {
	sink := k.sink.Load()
	if sink == nil {
		return k.idle
	}
	text := fmt.Sprintf("answers on %d interfaces", sink.Interfaces())
	if n := sink.LeftOut(); n > 0 {
		text += fmt.Sprintf("; %d names have no room", n)
	}
	return text
}

// close stops the program at once, unless this agent's successor goes on with it.
func (k *answersComponent) close() error {
	if k.agent.successor == nil {
		return k.release()
	}
	sink := k.sink.Swap(nil)
	if sink == nil {
		return nil
	}
	k.stop()
	return sink.Close()
}

// directNames are a table's names as the kernel's sink wants them.
type directNames struct{ table *dnsproxy.Table }

// Part implements answers.Names.
func (d directNames) Part(part, parts int) iter.Seq[answers.Name] {
	return func(yield func(answers.Name) bool) {
		for n := range d.table.DirectPart(part, parts) {
			if !yield(directName(n)) {
				return
			}
		}
	}
}

// Find implements answers.Names.
func (d directNames) Find(wire string) (answers.Name, bool) {
	n, ok := d.table.FindDirect(wire)
	return directName(n), ok
}

// Len implements answers.Names.
func (d directNames) Len() int { return d.table.Len() }

func directName(d dnsproxy.Direct) answers.Name {
	return answers.Name{Wire: d.Name, A: answers.Set(d.A), AAAA: answers.Set(d.AAAA), Zone: d.Zone, ApexLength: d.ApexLength}
}
