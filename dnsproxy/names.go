package dnsproxy

import (
	"fmt"
	"hash/maphash"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/weirproject/weir/api"
)

// names is what tables are made of: the documents and tasks as they are now, and
// the few facts that their names follow from beside them. One names makes a
// line of tables, each of the one before.
type names struct {
	mu sync.Mutex // guards all; none of it is needed to answer

	options Options
	domains []string // on the wire, the cluster's own first
	apexes  []string // domains, and the zones of DC/OS
	renames []rename

	services map[serviceKey]serviceState
	nodes    map[string]*api.Node
	records  map[recordKey]*api.Record
	tasks    map[string]taskState
	self     *api.Node
	allotted map[string]api.VIPAddresses
	ownVIPs  bool // allotted is no snapshot's

	named  map[string]int    // names of VIPs, with their namespaces
	apps   map[string]*app   // by appKey
	wanted map[string][]*app // who wants a name, the one that gets it first
	// clashes are the names at which something derived is hidden; faults are
	// tasks that cannot have names.
	clashes map[string]bool
	faults  map[string]error

	current *Table // the last one made
	broken  bool   // an error came in the middle: no table follows
}

type recordKey struct {
	name  string
	rtype api.RecordType
}

type taskState struct {
	task *Task
	app  *app
}

func newNames(o Options) (*names, error) {
	n := &names{
		options: o, services: map[serviceKey]serviceState{}, nodes: map[string]*api.Node{}, records: map[recordKey]*api.Record{},
		tasks: map[string]taskState{}, self: &api.Node{}, named: map[string]int{}, apps: map[string]*app{}, wanted: map[string][]*app{},
		clashes: map[string]bool{}, faults: map[string]error{},
	}
	if err := n.readDomains(); err != nil {
		return nil, err
	}
	n.current = &Table{seed: maphash.MakeSeed(), renames: n.renames, source: n}
	n.current.expect(0)
	return n, nil
}

// expect makes room for a number of names in an empty table.
func (t *Table) expect(names int) {
	n := uint32(1)
	for 2*names > 3*fullShard*int(n) {
		n *= 2
	}
	t.setShards(n)
	for i := range n {
		*t.shard(i) = emptyShard()
	}
}

func (n *names) readDomains() error {
	for _, d := range append([]string{n.options.Domain}, n.options.Aliases...) {
		name, err := wireName(d)
		if err != nil {
			return fmt.Errorf("read domain %q: %w", d, err)
		}
		if slices.Contains(n.domains, name) {
			continue
		}
		for _, other := range n.domains {
			if strings.HasSuffix(name, other) || strings.HasSuffix(other, name) {
				return fmt.Errorf("read domain %q: it lies within %s, or that within it", d, readable(other))
			}
		}
		n.domains = append(n.domains, name)
	}
	n.apexes = n.domains
	if !n.options.DCOS {
		return nil
	}
	for _, zone := range []string{dcosDirectory, dcosSpartan, dcosZK} {
		for _, d := range n.domains {
			if strings.HasSuffix(zone, d) || strings.HasSuffix(d, zone) {
				return fmt.Errorf("read domain %q: it is in the way of DC/OS's %s", readable(d), readable(zone))
			}
		}
		n.apexes = append(n.apexes[:len(n.apexes):len(n.apexes)], zone)
	}
	var err error
	n.renames, err = dcosRenames(n.domains[0], n.options.DCOSCluster)
	return err
}

// isApex tells whether a name is a zone's.
func (n *names) isApex(name string) bool {
	return name == "\x00" || slices.Contains(n.apexes, name) || isReverse(name)
}

// zoneOf gives the zone that a name lies in: whose SOA it has, and the length of
// its name.
func (n *names) zoneOf(name string) (zone, apexLen uint8) {
	if isReverse(name) {
		return 0, uint8(len(name))
	}
	for rest := name; ; rest = parent(rest) {
		if i := slices.Index(n.apexes, rest); i >= 0 {
			return uint8(i), uint8(len(rest))
		}
	}
}

// controllers in order of their names.
func (n *names) controllers() []*api.Node {
	var all []*api.Node
	for _, node := range n.nodes {
		if isController(node) {
			all = append(all, node)
		}
	}
	slices.SortFunc(all, func(a, b *api.Node) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// Notices tell, for people, which names are not what somebody may expect: two
// apps that want one, of which the second got a suffix; names that are hidden
// by documents; tasks that cannot have one. In the state of the newest table.
func (t *Table) Notices() []string {
	n := t.source
	n.mu.Lock()
	defer n.mu.Unlock()
	var all []string
	for _, key := range slices.Sorted(maps.Keys(n.wanted)) {
		list := n.wanted[key]
		for _, a := range list[1:] {
			for i, f := range a.forms {
				if f.key() == key {
					all = append(all, fmt.Sprintf("%s: %s is %s already; its name is %s.%s", a.owner, key, list[0].owner, a.label(i), f.rest))
				}
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(n.clashes)) {
		all = append(all, fmt.Sprintf("%s: more than one claims it; only one is answered (explain tells)", readable(name)))
	}
	for _, id := range slices.Sorted(maps.Keys(n.faults)) {
		all = append(all, n.faults[id].Error())
	}
	return all
}
