package dnsproxy

import (
	"errors"
	"net/netip"
	"slices"

	"github.com/weirproject/weir/api"
)

// Options of Compile.
type Options struct {
	// Domain of the cluster, such as weir.internal.
	Domain string
	// Aliases are domains with the same names beside it, such as mesos.
	Aliases []string
	// Listen is the address of ns.<domain>; without it the name has none.
	Listen netip.Addr
	// Programmed tells whether the kernel serves the VIPs of a service, given by
	// its key. Their names are left out until it does. nil: it serves all.
	Programmed func(service string, protocol api.Protocol) bool
	// Previous is the table before this one, if any: VIP names that it has stay,
	// as long as their service does, whatever Programmed says. When the domains
	// and the like are the same, only what differs is made anew.
	Previous *Table
	// Up tells whether a backend is healthy. nil: all are. One that is declared
	// draining, down or of weight zero is left out either way.
	Up func(api.Service, api.Backend) bool
	// Tasks of the whole cluster, with an ID each.
	Tasks []Task
	// Frameworks are schedulers that have names.
	Frameworks []Framework
	// ControllerPort is the port in _leader._tcp.<domain>; 8443 when zero.
	ControllerPort uint16
	// DCOS adds the names of DC/OS: thisdcos.directory, thisdcos.global, spartan
	// and zk. They are ours then, whether they exist or not.
	DCOS bool
	// DCOSCluster is the label before dcos.directory that stands for this cluster
	// too; empty for none.
	DCOSCluster string
	// Serial is the least serial of SOA records; the snapshot's revision when
	// zero. The time of the agent's start in seconds keeps serials growing over
	// restarts.
	Serial uint32
}

func (o *Options) controllerPort() uint16 {
	if o.ControllerPort == 0 {
		return 8443
	}
	return o.ControllerPort
}

// continues tells whether tables of these options can follow those of others.
func (o *Options) continues(before *Options) bool {
	return o.Domain == before.Domain && slices.Equal(o.Aliases, before.Aliases) && o.Listen == before.Listen && o.controllerPort() == before.controllerPort() &&
		o.DCOS == before.DCOS && o.DCOSCluster == before.DCOSCluster &&
		slices.EqualFunc(o.Frameworks, before.Frameworks, func(a, b Framework) bool {
			return a.Name == b.Name && a.Port == b.Port && slices.Equal(a.Addresses, b.Addresses)
		})
}

// least serial of a table.
func (o *Options) least(revision uint64) uint32 {
	if o.Serial > 0 {
		return o.Serial
	}
	return uint32(revision)
}

// Compile makes the table of the names that a snapshot knows. It changes neither
// snapshot nor Previous, but keeps the snapshot, which must not change any more.
// Its error joins one error per name that cannot be, each naming the document.
func Compile(s *api.Snapshot, o Options) (*Table, error) {
	if o.Previous != nil {
		if t, err, ok := o.Previous.source.follow(s, o); ok {
			return t, err
		}
	}
	return compileWhole(s, o)
}

// batch is how many sources are at least read at once for a whole table. More
// take a sixteenth at a time: what they claim takes ten times the memory that it
// takes in the table, and each time most of the table is copied.
const batch = 5000

func compileWhole(s *api.Snapshot, o Options) (*Table, error) {
	previous := o.Previous
	o.Previous = nil
	n, err := newNames(o)
	if err != nil {
		return nil, err
	}
	e, err := n.editsFor(s, o.Tasks)
	if err != nil {
		return nil, err
	}
	before := uint32(0)
	if previous != nil {
		before = previous.serial
		previous.source.inherit(e)
	}
	touched := n.spread(e)
	n.enter(e, touched)
	if err := n.makeAll(s, o.Tasks); err != nil {
		return nil, err
	}
	t := n.current
	t.pack()
	if t.serial == before {
		t.serial++ // another table altogether
	}
	t.finish(s.Revision, before, o.least(s.Revision))
	return t, nil
}

// inherit keeps VIPs published that were.
func (n *names) inherit(e *edits) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for key, state := range e.services {
		state.published = state.published || n.services[key].published
	}
}

// makeAll applies what all sources claim, in order and piece by piece.
func (n *names) makeAll(s *api.Snapshot, tasks []Task) error {
	n.current.expect(len(n.domains) * (len(s.Records) + 6*len(s.Services) + 20*len(n.apps) + len(tasks)))
	c, read := &claims{names: n}, 0
	piece := max(batch, (len(s.Nodes)+len(s.Services)+len(s.Records)+len(tasks))/16)
	var failed []error
	next := func() {
		if read++; read < piece {
			return
		}
		read = 0
		if _, err := n.apply(nil, c.list); err != nil {
			failed = append(failed, err)
		}
		c.list = c.list[:0]
	}
	c.fixed(n.controllers(), n.self)
	for i := range s.Nodes {
		c.node(&s.Nodes[i])
		next()
	}
	for i := range s.Services {
		c.serviceClaims(n.services[keyOfService(&s.Services[i])])
		next()
	}
	for i := range s.Records {
		c.record(&s.Records[i])
		next()
	}
	for i := range tasks {
		n.taskClaims(c, n.tasks[tasks[i].ID])
		next()
	}
	_, err := n.apply(nil, c.list)
	return errors.Join(errors.Join(c.errors...), errors.Join(failed...), err)
}
