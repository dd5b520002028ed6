package zonebench

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane/nft"
	"github.com/weirproject/weir/zones"
)

// tries is how often the whole policy is compiled and applied.
const tries = 3

// changes measures the whole policy, and then members that come and go.
func (r *Result) changes(ctx context.Context, o Options) error {
	p, nodes := fleet(o.Zones, o.Rules, o.Members)
	options := zones.Options{Self: nodes[0]}
	var compiles, applies []time.Duration
	var filter *nft.Filter
	var compiler *zones.Compiler
	for range tries {
		compiler = new(zones.Compiler)
		start := time.Now()
		compiled, err := compiler.Compile(p, zones.State{Nodes: nodes}, options)
		if err != nil {
			return err
		}
		compiles = append(compiles, time.Since(start))
		s, err := newSpace()
		if err != nil {
			return err
		}
		defer s.close()
		if filter, err = nft.New(nft.Options{NetNS: int(s.ns)}); err != nil {
			return err
		}
		defer filter.Close()
		start = time.Now()
		if _, err := filter.Set(ctx, compiled.Ruleset); err != nil {
			return err
		}
		applies = append(applies, time.Since(start))
		o.Log.Info("policy applied", "compiled", compiles[len(compiles)-1], "applied", applies[len(applies)-1])
	}
	r.Compile, r.Apply = timesOf(compiles), timesOf(applies)
	return r.members(ctx, o, p, nodes, compiler, filter)
}

// members takes single nodes out of the fleet and puts them back.
func (r *Result) members(ctx context.Context, o Options, p *api.Policy, nodes []api.Node, compiler *zones.Compiler, filter *nft.Filter) error {
	var compiles, all []time.Duration
	for i := range o.Changes {
		// Every second change takes back the one before.
		at := 3 + (i/2*7919)%(len(nodes)-3)
		state := zones.State{Nodes: nodes}
		if i%2 == 0 {
			state.Nodes = slices.Delete(slices.Clone(nodes), at, at+1)
		}
		start := time.Now()
		compiled, err := compiler.Compile(p, state, zones.Options{Self: nodes[0], Changed: []string{nodes[at].Name}})
		if err != nil {
			return err
		}
		compiles = append(compiles, time.Since(start))
		changes, err := filter.Set(ctx, compiled.Ruleset)
		if err != nil {
			return err
		}
		all = append(all, time.Since(start))
		n := changes.Written + changes.Removed
		if n == 0 || n > 10 {
			return fmt.Errorf("one member: %+v written, want a few elements", changes)
		}
		r.MemberWrites = max(r.MemberWrites, n)
	}
	r.MemberCompile, r.Member = timesOf(compiles), timesOf(all)
	return nil
}
