package iptables

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/weirproject/weir/dataplane"
)

// want builds what the ruleset asks for, so that no packet sees half of the
// change from what is found. It needs f.mu.
func (f *Filter) want(found *state, r *dataplane.Ruleset) (*state, error) {
	sources, dynamic, err := f.sources(r)
	if err != nil {
		return nil, err
	}
	names := map[string]string{}
	for first, s := range sources {
		for _, name := range []string{first, twin(first)} {
			if o := found.sets[name]; o != nil && o.typ == s.typ && o.v6 == s.v6 && (len(s.members) <= o.max) {
				stale, fresh := o.changes(s)
				if names[first] = name; len(stale)+len(fresh) == 0 {
					break
				}
			}
		}
		if names[first] == "" && found.sets[first] != nil {
			names[first] = twin(first) // it has no room, or is of another kind
		}
	}
	wanted, looks, err := f.build(r, sources, dynamic, names)
	if err != nil {
		return nil, err
	}
	if !rulesDiffer(found, wanted) && !moves(found, wanted) {
		return wanted, nil
	}
	flipped := false
	for first := range looks {
		if names[first] == "" {
			continue
		}
		if o := found.sets[names[first]]; o != nil && !o.learns() {
			if stale, fresh := o.changes(sources[first]); len(stale)+len(fresh) > 0 {
				names[first], flipped = twin(names[first]), true
			}
		}
	}
	if flipped {
		wanted, _, err = f.build(r, sources, dynamic, names)
	}
	return wanted, err
}

// sources makes the sets of a ruleset, by first names.
func (f *Filter) sources(r *dataplane.Ruleset) (sources map[string]*set, dynamic map[string]bool, err error) {
	sources, dynamic = map[string]*set{}, map[string]bool{}
	put := func(name string, v6 bool, s *set, err error) error {
		if _, taken := sources[setName(name, v6)]; taken || name == "" {
			return fmt.Errorf("set %q: the name is taken or empty", name)
		}
		sources[setName(name, v6)] = s
		return err
	}
	for _, v6 := range []bool{false, true} {
		for _, a := range r.Sets {
			s := f.known(setName(a.Name, v6), a.Version)
			if s == nil {
				s, err = addressSet(a, v6)
			}
			if err := put(a.Name, v6, s, err); err != nil {
				return nil, nil, err
			}
		}
		for _, e := range r.Endpoints {
			s := f.known(setName(e.Name, v6), e.Version)
			if s == nil {
				s, err = endpointSet(e, v6)
			}
			if err := put(e.Name, v6, s, err); err != nil {
				return nil, nil, err
			}
		}
		for _, d := range r.Dynamic {
			dynamic[d.Name] = true
			if err := put(d.Name, v6, &set{typ: "hash:ip", v6: v6, max: 1 << 16}, nil); err != nil {
				return nil, nil, err
			}
		}
	}
	return sources, dynamic, nil
}

// known gives the last ruleset's set of the same version.
func (f *Filter) known(first string, version uint64) *set {
	if f.last == nil || version == 0 {
		return nil
	}
	for _, name := range []string{first, twin(first)} {
		if s := f.last.sets[name]; s != nil && s.version == version {
			return s
		}
	}
	return nil
}

// build writes rules and the sets that they look into.
func (f *Filter) build(r *dataplane.Ruleset, sources map[string]*set, dynamic map[string]bool, names map[string]string) (*state, map[string]bool, error) {
	wanted, looks := newState(), map[string]bool{}
	for _, v6 := range f.commands.families() {
		b := &builder{
			state: wanted, ruleset: r, observe: f.options.Observe, v6: v6, names: names,
			sources: sources, dynamic: dynamic, looks: looks,
		}
		b.build()
		if b.err != nil {
			return nil, nil, b.err
		}
	}
	for name := range dynamic {
		looks[setName(name, false)], looks[setName(name, true)] = true, true
	}
	for first := range looks {
		name := first
		if names[first] != "" {
			name = names[first]
		}
		wanted.sets[name] = sources[first]
	}
	return wanted, looks, nil
}

func rulesDiffer(found, wanted *state) bool {
	for _, t := range tables() {
		if !maps.EqualFunc(found.in(t).rules, wanted.in(t).rules, sameRules) {
			return true
		}
	}
	return false
}

// moves tells whether a member leaves one set and comes into another.
func moves(found, wanted *state) bool {
	left := map[string]bool{}
	var came []string
	for name, s := range wanted.sets {
		if o := found.sets[name]; o != nil && !s.learns() {
			stale, fresh := o.changes(s)
			for _, m := range stale {
				left[m] = true
			}
			came = append(came, fresh...)
		}
	}
	return slices.ContainsFunc(came, func(m string) bool { return left[m] })
}

// write turns the kernel's state from found into wanted: sets that no rule
// looks into yet, then the rules of each family, then it removes sets that no
// rule looks into any more.
func (f *Filter) write(ctx context.Context, found, wanted *state) error {
	if err := f.ipset(ctx, f.newMembers(found, wanted)); err != nil {
		return err
	}
	for _, v6 := range f.commands.families() {
		var script bytes.Buffer
		for _, t := range tables() {
			if t.v6 == v6 {
				script.WriteString(restore(t.name, found.in(t), wanted.in(t)))
			}
		}
		if script.Len() == 0 {
			continue
		}
		if _, err := f.commands.run(ctx, script.Bytes(), f.commands.name(v6, "restore"), "--noflush", "--counters", "-w", "5"); err != nil {
			return err
		}
		if v6 {
			if err := f.recount(ctx, found, wanted); err != nil {
				return err
			}
		}
	}
	var old strings.Builder
	for _, name := range slices.Sorted(maps.Keys(found.sets)) {
		if wanted.sets[name] == nil {
			fmt.Fprintf(&old, "destroy %s\n", name)
		}
	}
	return f.ipset(ctx, old.String())
}

// recount adds to a name's counter what its rules have lost: ip6tables-nft 1.8.9
// takes no counters from its input.
func (f *Filter) recount(ctx context.Context, found, wanted *state) error {
	had := map[string]Counter{}
	for t, c := range found.tables {
		if t.v6 {
			c.sum(had)
		}
	}
	now := newState()
	if err := f.findRules(ctx, now); err != nil {
		return err
	}
	have, keep := map[string]Counter{}, wanted.counters()
	for t, c := range now.tables {
		if t.v6 {
			c.sum(have)
		}
	}
	for name, before := range had {
		if _, kept := keep[name]; kept && have[name].Packets < before.Packets {
			sum := f.lost[name]
			f.lost[name] = Counter{
				Packets: sum.Packets + before.Packets - have[name].Packets, Bytes: sum.Bytes + before.Bytes - min(before.Bytes, have[name].Bytes),
			}
		}
	}
	maps.DeleteFunc(f.lost, func(name string, _ Counter) bool { _, kept := keep[name]; return !kept })
	return nil
}

func (f *Filter) ipset(ctx context.Context, script string) error {
	if script == "" {
		return nil
	}
	_, err := f.commands.run(ctx, []byte(script), "ipset", "restore", "-exist")
	return err
}

// newMembers makes the sets that were not found, and changes those that were.
func (f *Filter) newMembers(found, wanted *state) string {
	var script strings.Builder
	for _, name := range slices.Sorted(maps.Keys(wanted.sets)) {
		s, o := wanted.sets[name], found.sets[name]
		if o == nil {
			script.WriteString(s.create(name))
			o = &set{}
			for a, end := range f.stays[name] {
				if left := time.Until(end); left > time.Second && s.learns() {
					fmt.Fprintf(&script, "add %s %s timeout %d\n", name, a, int(left/time.Second))
				}
			}
		}
		if s.learns() {
			continue
		}
		stale, fresh := o.changes(s)
		for _, m := range stale {
			fmt.Fprintf(&script, "del %s %s\n", name, m)
		}
		for _, m := range fresh {
			fmt.Fprintf(&script, "add %s %s\n", name, m)
		}
	}
	return script.String()
}

// restore writes what iptables-restore has to do in a table; empty if nothing.
// All of it becomes valid in one step. What a name has counted goes on in the
// first rule that counts for it; packets that come between the reading and the
// step are lost from it.
func restore(name string, found, wanted *chains) string {
	counters := found.sum(map[string]Counter{})
	hooked := true
	for hook := range union(found.hooks, wanted.hooks) {
		hooked = hooked && found.hooks[hook] == wanted.hooks[hook]
	}
	if hooked && maps.EqualFunc(found.rules, wanted.rules, sameRules) {
		return ""
	}
	var s strings.Builder
	fmt.Fprintf(&s, "*%s\n", name)
	for _, chain := range slices.Sorted(maps.Keys(union(found.rules, wanted.rules))) {
		fmt.Fprintf(&s, ":%s - [0:0]\n", chain) // makes or empties it
	}
	for _, chain := range slices.Sorted(maps.Keys(union(found.rules, wanted.rules))) {
		hook := hookOf(chain)
		if hook == "" || found.hooks[hook] == wanted.hooks[hook] {
			continue
		}
		for range max(found.hooks[hook], -found.hooks[hook]) {
			fmt.Fprintf(&s, "-D %s -j %s\n", hook, chain)
		}
		if wanted.hooks[hook] > 0 {
			fmt.Fprintf(&s, "-I %s 1 -j %s\n", hook, chain)
		}
	}
	for _, chain := range slices.Sorted(maps.Keys(wanted.rules)) {
		for _, r := range wanted.rules[chain] {
			sum := Counter{}
			if r.counts {
				sum = counters[r.name]
				delete(counters, r.name)
			}
			fmt.Fprintf(&s, "[%d:%d] -A %s -m comment --comment %s %s\n", sum.Packets, sum.Bytes, chain, quote(r.mark+" "+r.name), r.text)
		}
	}
	for _, chain := range slices.Sorted(maps.Keys(found.rules)) {
		if _, keep := wanted.rules[chain]; !keep {
			fmt.Fprintf(&s, "-X %s\n", chain)
		}
	}
	s.WriteString("COMMIT\n")
	return s.String()
}
