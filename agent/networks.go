package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/agent/ipam"
	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/dataplane/container"
)

// bridgeNetwork is the network that every node has for itself.
const bridgeNetwork = "bridge"

// The owners of attachments.
const (
	ownerTasks = "tasks"
	ownerCNI   = "cni"
)

// errNoNetwork is told of a network that this node has no part of.
var errNoNetwork = errors.New("this node has no such network")

// Networks has the containers' networks of this node: it gives containers their
// addresses and makes the kernel hold what they and the snapshot want.
type Networks struct {
	agent *Agent
	sink  *container.Sink
	book  *ipam.Book

	// setting is held from reading the book until the kernel holds what it says,
	// so that an older table never replaces a newer one. It guards what follows.
	setting  sync.Mutex
	snapshot *api.Snapshot // the last that was applied

	mu    sync.Mutex // guards what follows
	shown string     // detail
}

func (a *Agent) newNetworks() *Networks {
	book, err := ipam.Open(a.dataPath("networks"))
	if err != nil {
		a.log.Error("some attachments of containers cannot be read: their addresses may be given again", "error", err)
	}
	return &Networks{agent: a, book: book, sink: container.New(container.Options{Log: a.log.With("component", "networks")})}
}

func (n *Networks) backend() string { return "bridge" }

func (n *Networks) followsStates() bool { return false }

func (n *Networks) detail() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.shown
}

func (n *Networks) close() error { return nil }

func (n *Networks) apply(ctx context.Context, s *api.Snapshot) (dataplane.Changes, error) {
	n.setting.Lock()
	defer n.setting.Unlock()
	n.snapshot = s
	collected := n.collect(nil)
	changes, err := n.set(ctx)
	return changes, errors.Join(collected, err)
}

// set makes the kernel hold what book and snapshot say. It must be called with
// setting held.
func (n *Networks) set(ctx context.Context) (dataplane.Changes, error) {
	if n.snapshot == nil {
		n.snapshot = n.agent.snapshot.Load()
	}
	if n.snapshot == nil {
		return dataplane.Changes{}, nil // nothing is known of what is wanted: nothing is touched
	}
	table := n.table()
	changes, err := n.sink.Set(ctx, table)
	routed, tunnelled, others := n.sink.Ways()
	text := fmt.Sprintf("%d networks, %d containers, %d nodes by routes, %d by tunnels", len(table.Networks), len(table.Endpoints), routed, tunnelled)
	if len(others) > 0 {
		text += fmt.Sprintf("; not on this node's links, so left to its routers: %s", strings.Join(others, ", "))
	}
	n.mu.Lock()
	n.shown = text
	n.mu.Unlock()
	return changes, err
}

// Attach gives a task's network namespace, a path, its interfaces, and publishes
// its ports. It returns the task's addresses: a task that is attached already
// keeps its own. The host's network needs nothing and gives none.
func (n *Networks) Attach(ctx context.Context, taskID, netns string, networks []api.TaskNetwork, ports []api.TaskPort) ([]netip.Addr, error) {
	networks = slices.DeleteFunc(slices.Clone(networks), func(t api.TaskNetwork) bool { return t.Name == "host" || t.Name == "none" })
	if len(networks) == 0 {
		return nil, nil
	}
	wanted := api.Attachment{ID: taskID, Owner: ownerTasks, Namespace: netns, Ports: ports}
	for i, t := range networks {
		wanted.Interfaces = append(wanted.Interfaces, api.AttachedInterface{Network: t.Name, Name: fmt.Sprintf("eth%d", i), Addresses: t.Addresses, Default: i == 0})
	}
	made, err := n.attach(ctx, wanted)
	return made.Addresses(), err
}

// Detach takes a task out of its networks and returns its addresses; for one
// that is in none it does nothing.
func (n *Networks) Detach(ctx context.Context, taskID string) error { return n.detach(ctx, taskID) }

func (n *Networks) attach(ctx context.Context, wanted api.Attachment) (api.Attachment, error) {
	n.setting.Lock()
	defer n.setting.Unlock()
	if n.snapshot == nil {
		if n.snapshot = n.agent.snapshot.Load(); n.snapshot == nil {
			return api.Attachment{}, errNotReady
		}
	}
	space, err := namespaceID(wanted.Namespace)
	if err != nil {
		return api.Attachment{}, fmt.Errorf("find the network namespace: %w", err)
	}
	wanted.Space = space
	held, again := n.book.Get(wanted.ID)
	if err := n.assign(&wanted, held); err != nil {
		return api.Attachment{}, err
	}
	if again && held.Space != space {
		// What it had is in a namespace that is no longer its own.
		if err := n.drop(ctx, wanted.ID); err != nil {
			return api.Attachment{}, err
		}
	}
	if err := n.book.Put(wanted); err != nil {
		return api.Attachment{}, err
	}
	if _, err = n.set(ctx); err == nil {
		return wanted, nil
	}
	if checked := n.sink.Check(endpointOf(wanted)); checked == nil {
		// Something else went wrong; the next pass tries it again and tells.
		n.agent.log.Warn("networks are not as wanted", "component", "networks", "error", err)
		return wanted, nil
	}
	if !again {
		err = errors.Join(err, n.drop(context.WithoutCancel(ctx), wanted.ID))
	}
	return api.Attachment{}, err
}

// assign fills in addresses: those that it is given, those that it has had, or
// new ones, one of each family of the network.
func (n *Networks) assign(wanted *api.Attachment, held api.Attachment) error {
	networks := n.networks(n.snapshot, true)
	for at := range wanted.Interfaces {
		i := &wanted.Interfaces[at]
		index := slices.IndexFunc(networks, func(c container.Network) bool { return c.Name == i.Network })
		if index < 0 {
			return fmt.Errorf("network %s: %w", i.Network, errNoNetwork)
		}
		gateways := networks[index].Gateways
		for _, a := range i.Addresses {
			if !slices.ContainsFunc(gateways, func(g netip.Prefix) bool { return g.Contains(a) && g.Addr() != a }) {
				return fmt.Errorf("network %s: address %s is not one for containers of this node's subnets %v", i.Network, a, gateways)
			}
		}
		if len(i.Addresses) > 0 {
			continue
		}
		was := slices.IndexFunc(held.Interfaces, func(h api.AttachedInterface) bool { return h.Network == i.Network })
		for _, g := range gateways {
			if was >= 0 {
				if k := slices.IndexFunc(held.Interfaces[was].Addresses, g.Contains); k >= 0 {
					i.Addresses = append(i.Addresses, held.Interfaces[was].Addresses[k])
					continue
				}
			}
			a, err := n.book.Pick(g, g.Addr())
			if err != nil {
				return fmt.Errorf("network %s: %w", i.Network, err)
			}
			i.Addresses = append(i.Addresses, a)
		}
	}
	return nil
}

func (n *Networks) detach(ctx context.Context, id string) error {
	n.setting.Lock()
	defer n.setting.Unlock()
	if _, found := n.book.Get(id); !found {
		return nil
	}
	return n.drop(ctx, id)
}

// drop must be called with setting held.
func (n *Networks) drop(ctx context.Context, id string) error {
	if err := n.book.Remove(id); err != nil {
		return err
	}
	_, err := n.set(ctx)
	return err
}

// collect returns what containers had that are no more: those whose namespace
// is gone, and those that dead says are dead; nil: none.
func (n *Networks) collect(dead func(api.Attachment) bool) error {
	var faults []error
	for _, a := range n.book.All() {
		space, err := namespaceID(a.Namespace)
		gone := errors.Is(err, os.ErrNotExist) || err == nil && space != a.Space
		if !gone && (dead == nil || !dead(a)) {
			continue
		}
		if err := n.book.Remove(a.ID); err != nil {
			faults = append(faults, err)
			continue
		}
		n.agent.log.Info("addresses of a container that is gone are free again", "component", "networks", "id", a.ID, "addresses", a.Addresses())
	}
	return errors.Join(faults...)
}

// namespaceID is what the kernel knows a namespace by. After a reboot all are others.
func namespaceID(path string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return "", &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return fmt.Sprintf("%s %d:%d", bootID(), st.Dev, st.Ino), nil
}
