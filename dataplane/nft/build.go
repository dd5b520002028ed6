package nft

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"reflect"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/dataplane/internal/verdict"
)

// build is a ruleset as the content of our table, with what the next one can
// take over.
type build struct {
	*content
	ruleset *dataplane.Ruleset
	sources map[string]*set      // address and endpoint sets, by first names
	hooks   map[string]*dispatch // by hook
	parts   map[string]*set      // of sets and maps, by first names
	names   map[string]string    // the kernel's names of sets, by first names
	looks   map[string]kind      // the sets that rules look into, by first names
}

// builder makes a build.
type builder struct {
	build
	mode    Mode
	noTime  bool // the kernel cannot compare times
	dynamic map[string]bool
	err     error
}

func (b *builder) fail(format string, args ...any) {
	if b.err == nil {
		b.err = fmt.Errorf(format, args...)
	}
}

// newBuilder builds the sets of a ruleset, from those of the last one where it
// can.
func newBuilder(r *dataplane.Ruleset, mode Mode, last *build) *builder {
	if last == nil {
		last = &build{}
	}
	b := &builder{mode: mode, dynamic: map[string]bool{}}
	// The caller may go on to change what is not a set.
	own := *r
	own.Input, own.Forward, own.Output, own.Guards = slices.Clone(r.Input), slices.Clone(r.Forward), slices.Clone(r.Output), slices.Clone(r.Guards)
	b.ruleset, b.sources, b.hooks = &own, map[string]*set{}, map[string]*dispatch{}
	for _, s := range r.Sets {
		b.addSource(s.Name, func(v6 bool, old *set) (*set, error) { return addressSet(s, v6, old) }, last)
	}
	for _, s := range r.Endpoints {
		b.addSource(s.Name, func(v6 bool, old *set) (*set, error) { return endpointSet(s, v6, old) }, last)
	}
	for _, s := range r.Dynamic {
		if b.sources[setOf(s.Name, false)] != nil || b.dynamic[s.Name] || s.Name == "" {
			b.fail("set %q: the name is taken or empty", s.Name)
		}
		b.dynamic[s.Name] = true
	}
	if b.err != nil {
		return b
	}
	for _, hook := range []string{inputChain, forwardChain, outputChain} {
		b.classify(hook, last)
	}
	b.makeParts(last)
	return b
}

// rulesOf gives the rules of a hook.
func rulesOf(r *dataplane.Ruleset, hook string) []dataplane.FilterRule {
	switch hook {
	case inputChain:
		return r.Input
	case forwardChain:
		return r.Forward
	default:
		return r.Output
	}
}

// classify makes the hook's classes, if that is worth it.
func (b *builder) classify(hook string, last *build) {
	rules := rulesOf(b.ruleset, hook)
	d := split(rules, func(name string) bool {
		s := b.sources[setOf(name, false)]
		return s != nil && s.kind == addresses
	})
	if d == nil {
		return
	}
	for _, other := range b.hooks {
		if other.source == d.source && slices.Equal(other.sets, d.sets) {
			if other.rulesInAll(rules) <= manyRules {
				b.hooks[hook] = other
			}
			return
		}
	}
	if d.classify(b.sources, last.hooks[hook], rules) {
		b.hooks[hook] = d
	}
}

// addSource makes the two sets of a name.
func (b *builder) addSource(name string, make func(v6 bool, old *set) (*set, error), last *build) {
	for _, v6 := range []bool{false, true} {
		s, err := make(v6, last.sources[setOf(name, v6)])
		if err != nil {
			b.fail("set %s: %w", name, err)
		}
		if _, taken := b.sources[setOf(name, v6)]; taken || name == "" {
			b.fail("set %q: the name is taken or empty", name)
		}
		b.sources[setOf(name, v6)] = s
	}
}

// rulesLike takes the last build's rules, when they would come out the same.
func (b *builder) rulesLike(last *build) bool {
	if last == nil || last.ruleset == nil || len(b.hooks) != len(last.hooks) {
		return false
	}
	for hook, d := range b.hooks {
		if !d.alike(last.hooks[hook]) {
			return false
		}
	}
	for name, k := range last.looks {
		if s := b.sources[name]; (k == addresses || k == endpoints) && (s == nil || s.kind != k) && b.parts[name] == nil {
			return false
		}
	}
	p, q := b.ruleset, last.ruleset
	if p.Zoned != q.Zoned || p.Inside != q.Inside || !sameRulesAs(p.Input, q.Input) || !sameRulesAs(p.Forward, q.Forward) ||
		!sameRulesAs(p.Output, q.Output) || !reflect.DeepEqual(p.Guards, q.Guards) || !slices.EqualFunc(p.Dynamic, q.Dynamic, sameName) {
		return false
	}
	b.content = newContent()
	b.chains, b.rules, b.counters, b.names, b.looks = last.chains, last.rules, last.counters, last.names, last.looks
	b.shape = last.shape
	b.addSets()
	return true
}

func sameName(a, b dataplane.DynamicSet) bool { return a.Name == b.Name }

func sameRulesAs(a, b []dataplane.FilterRule) bool {
	return slices.EqualFunc(a, b, sameRule)
}

// sameRule is reflect.DeepEqual at a tenth of its cost.
func sameRule(a, b dataplane.FilterRule) bool {
	return a.Name == b.Name && a.From == b.From && a.To == b.To && a.Endpoints == b.Endpoints && a.Deny == b.Deny && a.Log == b.Log &&
		a.Rate == b.Rate && a.Expires.Equal(b.Expires) && slices.Equal(a.Ports, b.Ports) && slices.Equal(a.NotPorts, b.NotPorts) &&
		slices.Equal(a.NotFrom, b.NotFrom) && slices.Equal(a.NotTo, b.NotTo)
}

// buildRules writes the rules, with the kernel's names of the sets.
func (b *builder) buildRules(names map[string]string) error {
	b.content, b.names, b.looks = newContent(), names, map[string]kind{}
	policy := nftables.ChainPolicyDrop
	if b.mode == Observe {
		policy = nftables.ChainPolicyAccept
	}
	b.chains[addressedChain], b.chains[inputChain], b.chains[forwardChain] = nftables.ChainPolicyAccept, policy, policy
	if b.ruleset.Inside != "" {
		b.chains[outputChain] = policy
	}
	b.addBuiltIn()
	b.addHook(addressedChain, inputChain, b.ruleset.Input)
	b.addHook(inputChain, inputChain, b.ruleset.Input)
	b.addHook(forwardChain, forwardChain, b.ruleset.Forward)
	if b.ruleset.Inside != "" {
		b.addHook(outputChain, outputChain, b.ruleset.Output)
	}
	for _, d := range b.ruleset.Dynamic {
		for _, v6 := range []bool{false, true} {
			b.look(setOf(d.Name, v6), learnt)
		}
	}
	b.addSets()
	return b.err
}

// look notes that a rule looks into the set, and gives the kernel's name of it.
func (b *builder) look(first string, k kind) string {
	b.looks[first] = k
	if name := b.names[first]; name != "" {
		return name
	}
	return first
}

// addSets puts the sets that rules look into among the content.
func (b *builder) addSets() {
	for first, k := range b.looks {
		name := b.look(first, k)
		switch k {
		case addresses, endpoints:
			b.sets[name] = b.sources[first]
			if p := b.parts[first]; p != nil {
				b.sets[name] = p
			}
		case learnt, meter:
			b.sets[name] = &set{kind: k, v6: first[len(first)-1] == '6'}
		case hosts, classes, hostClasses:
			b.sets[name] = b.parts[first]
		case verdicts:
			for _, base := range baseChains {
				for _, v6 := range []bool{false, true} {
					if targetsName(base, v6) == first {
						b.sets[name] = b.hooks[hookFor(base)].targets(base, v6)
					}
				}
			}
		}
	}
}

func hookFor(base string) string {
	if base == addressedChain {
		return inputChain
	}
	return base
}

// add appends a rule to the chain.
func (b *builder) add(chain, name string, exprs []expr.Any, literals ...*literal) {
	literals = slices.DeleteFunc(literals, func(l *literal) bool { return l == nil })
	r := rule{name: name, literal: literals}
	code, err := encode(exprs)
	if err != nil {
		b.fail("rule %s of chain %s: %w", name, chain, err)
	}
	hash := sha256.New()
	fmt.Fprintln(hash, name)
	hash.Write(code)
	if r.code = code; len(literals) > 0 {
		r.code, r.exprs = nil, exprs
	}
	for _, l := range literals {
		fmt.Fprintln(hash, l.typ, l.interval, l.elements)
	}
	r.mark = string(hash.Sum(nil)[:8])
	b.rules[chain] = append(b.rules[chain], r)
}

// denial gives the chain that counts, logs and drops for the name; it counts,
// logs and accepts while observing.
func (b *builder) denial(name string) string {
	kind, word := expr.VerdictDrop, verdict.Dropped
	if b.mode == Observe {
		kind, word = expr.VerdictAccept, verdict.Observed
	}
	return b.ending("deny."+short(name), name, word, kind)
}

// ending makes a chain that logs, counts and decides.
func (b *builder) ending(chain, name, word string, kind expr.VerdictKind) string {
	if _, there := b.chains[chain]; !there {
		b.chains[chain] = nftables.ChainPolicyAccept
		b.add(chain, "log", []expr.Any{
			&expr.Limit{Type: expr.LimitTypePkts, Rate: verdict.Rate, Unit: expr.LimitTimeSecond, Burst: verdict.Burst},
			&expr.Log{Key: 1<<unix.NFTA_LOG_GROUP | 1<<unix.NFTA_LOG_PREFIX | 1<<unix.NFTA_LOG_SNAPLEN, Group: verdict.Group, Snaplen: verdict.Bytes,
				Data: []byte(verdict.Prefix(word, name, prefixBytes-1))},
		})
		b.add(chain, name, []expr.Any{b.counter(name), &expr.Verdict{Kind: kind}})
	}
	return chain
}

// counter counts under the name.
func (b *builder) counter(name string) expr.Any {
	if name == "" || len(name) > 255 {
		b.fail("rule %q: its name is empty or too long for the kernel", name)
	}
	b.counters[name] = true
	return &expr.Objref{Type: unix.NFT_OBJECT_COUNTER, Name: name}
}

// linkAlone are destinations that no router passes on.
func linkAlone() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix("224.0.0.0/4"), netip.MustParsePrefix("255.255.255.255/32"), netip.MustParsePrefix("169.254.0.0/16"),
		netip.MustParsePrefix("ff00::/8"), netip.MustParsePrefix("fe80::/10"),
	}
}
