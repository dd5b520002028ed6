package bench

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/dataplane/program"
)

// UpdateReport says how long changes take.
type UpdateReport struct {
	Services int `json:"services"`
	Backends int `json:"backends"`
	// Load of the whole table into a kernel without any.
	Load time.Duration `json:"load_ns"`
	// Memory of all maps and programs, in bytes, by the kernel's account.
	Memory uint64 `json:"memory_bytes"`
	// Reopen is New and the first Set of another process's maps.
	Reopen  time.Duration `json:"reopen_ns"`
	Changes []Change      `json:"changes"`
	Peers   []PeerUpdate  `json:"peers"`
}

// Change is what one kind of change took, from the call of Set to its return.
type Change struct {
	What  string `json:"what"`
	Times int    `json:"times"`
	Took  Spread `json:"took_us"`
	// Writes to the kernel's maps.
	Writes Spread `json:"writes"`
}

// PeerUpdate is how long a peer's own tool takes. Fault is set when it did not
// finish.
type PeerUpdate struct {
	What  string        `json:"what"`
	Took  time.Duration `json:"took_ns"`
	Fault string        `json:"fault,omitempty"`
}

// changesOfAKind is how often each change is repeated.
const changesOfAKind = 100

// Update measures how fast the balancer takes changes, and its peers, each of
// whose steps is given up after patience.
func Update(ctx context.Context, o Options, patience time.Duration) (*UpdateReport, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	o = o.withDefaults()
	r := &UpdateReport{Services: o.Services, Backends: o.Backends}
	s, err := newSite(ctx, o.Log, 3)
	if err != nil {
		return r, err
	}
	defer s.close()
	t := makeTable(o.Services, o.Backends)
	if err := r.sink(ctx, s.clients[0], t); err != nil {
		return r, err
	}
	r.peers(ctx, s.clients[1:], t, patience)
	return r, ctx.Err()
}

func (r *UpdateReport) sink(ctx context.Context, c *client, t dataplane.Table) error {
	options := program.Options{PinDir: c.pins, Cgroup: c.cgroup, VerifyEvery: time.Hour}
	b, err := program.New(options)
	if err != nil {
		return err
	}
	defer func() { b.Close() }()
	start := time.Now()
	if _, err := b.Set(ctx, t); err != nil {
		return fmt.Errorf("load %d services: %w", len(t.Services), err)
	}
	r.Load = time.Since(start)
	if r.Memory, err = kernelMemory(c.cgroup); err != nil {
		return err
	}
	for _, change := range changes {
		if err := r.change(ctx, b, &t, change.what, change.make); err != nil {
			return fmt.Errorf("%s: %w", change.what, err)
		}
	}
	if err := b.Close(); err != nil {
		return err
	}
	start = time.Now()
	if b, err = program.New(options); err != nil {
		return err
	}
	if _, err := b.Set(ctx, t); err != nil {
		return err
	}
	r.Reopen = time.Since(start)
	return nil
}

// changes of one service, by the number of the change.
var changes = []struct {
	what string
	make func(s *dataplane.Service, i int)
}{
	{"nothing changed", nil},
	{"a backend goes down", func(s *dataplane.Service, _ int) { setState(s, 0, api.Down) }},
	{"a backend comes up", func(s *dataplane.Service, _ int) { setState(s, 0, api.Up) }},
	{"a backend is replaced by another", func(s *dataplane.Service, i int) {
		// 10.100.0.0/16 sorts behind every other backend.
		next := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 100, byte(i >> 8), byte(i)}), 8080)
		s.Backends = append(slices.Delete(s.Backends, 0, 1), dataplane.Backend{Address: next, Weight: 1, State: api.Up})
	}},
	{"a backend is removed", func(s *dataplane.Service, _ int) {
		s.Backends = slices.Delete(s.Backends, 0, 1)
		setState(s, 0, api.Up)
	}},
}

// setState changes the backend, and the slots to those of the ones that are up.
func setState(s *dataplane.Service, i int, state api.BackendState) {
	s.Backends[i].State = state
	s.Slots = nil
	for j, b := range s.Backends {
		if b.State == api.Up {
			s.Slots = append(s.Slots, uint32(j))
		}
	}
}

// change makes the change to one service after the other, in a table that
// shares all other services with the one before.
func (r *UpdateReport) change(ctx context.Context, b dataplane.Balancer, t *dataplane.Table, what string, alter func(*dataplane.Service, int)) error {
	var took, writes []float64
	for i := range changesOfAKind {
		next := dataplane.Table{Ranges: t.Ranges, Services: slices.Clone(t.Services)}
		if alter != nil {
			at := (i*usedEveryDatagram + 7) % len(next.Services)
			next.Services[at] = clone(next.Services[at])
			alter(next.Services[at], i)
		}
		start := time.Now()
		c, err := b.Set(ctx, next)
		if err != nil {
			return err
		}
		took = append(took, microseconds(time.Since(start)))
		writes = append(writes, float64(c.Written+c.Removed+c.Repaired))
		*t = next
	}
	r.Changes = append(r.Changes, Change{what, len(took), spreadOf(took), spreadOf(writes)})
	return nil
}

// clone copies a service so that the copy may be changed.
func clone(s *dataplane.Service) *dataplane.Service {
	c := *s
	c.Backends, c.Slots = slices.Clone(s.Backends), slices.Clone(s.Slots)
	return &c
}

// Markdown writes the report for people.
func (r *UpdateReport) Markdown(w io.Writer) error {
	total := r.Services * r.Backends
	var b strings.Builder
	fmt.Fprintf(&b, "%d services × %d backends, Weir:\n\n", r.Services, r.Backends)
	fmt.Fprintf(&b, "| | |\n|---|---|\n| full load of %d backends | %s |\n", total, r.Load.Round(time.Millisecond))
	fmt.Fprintf(&b, "| kernel memory | %.1f MiB, %.0f bytes for each service, %.0f for each backend |\n",
		float64(r.Memory)/(1<<20), float64(r.Memory)/float64(r.Services), float64(r.Memory)/float64(total))
	fmt.Fprintf(&b, "| a restarted process: open, read back and compare all | %s |\n", r.Reopen.Round(time.Millisecond))
	b.WriteString("\n| one change | took µs | writes |\n|---|---|---|\n")
	for _, c := range r.Changes {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", c.What, c.Took.text(1, 0), c.Writes.text(1, 0))
	}
	b.WriteString("\n| peers, by their own tools | took |\n|---|---|\n")
	for _, p := range r.Peers {
		took := p.Took.Round(time.Millisecond).String()
		if p.Fault != "" {
			took = p.Fault
		}
		fmt.Fprintf(&b, "| %s | %s |\n", p.What, took)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
