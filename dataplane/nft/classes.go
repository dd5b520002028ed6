package nft

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/weirproject/weir/dataplane"
)

const (
	// fewRules are tried one after the other: it costs less than a look-up.
	fewRules = 12
	// manyClasses bounds the chains that a hook gets. Zones overlap rarely; where
	// nearly every address lies in another combination of them, rules are tried
	// one after the other.
	manyClasses = 4096
	// manyRules bounds the rules of all those chains.
	manyRules = 60_000
)

// dispatch splits the rules of a hook by the sets in which one end of a flow
// lies. A class is a combination of sets that some address lies in; each has a
// chain with only those rules that can match it, in their order. So what a
// packet costs does not depend on how many rules there are for others.
type dispatch struct {
	source bool              // by the source's address
	sets   []string          // names of address sets, sorted
	maps   [2]*set           // from address to class; by family
	of     map[uint32][]int  // the sets of each class, as indexes, sorted
	used   [2]map[uint32]int // how many spans are in each class, by family
}

func (d *dispatch) end(r dataplane.FilterRule) string {
	if d.source {
		return r.From
	}
	return r.To
}

// mapName names the kernel's map from addresses to classes. Hooks that tell the
// same sets apart share it.
func (d *dispatch) mapName() string {
	end := "to"
	if d.source {
		end = "from"
	}
	return fmt.Sprintf("%s.%08x", end, digest(strings.Join(d.sets, " ")))
}

// targets is the map from classes to the chains of a base chain.
func (d *dispatch) targets(base string, v6 bool) *set {
	out := &set{kind: verdicts, v6: v6}
	for class := range d.used[boolCount(v6)] {
		out.keys = append(out.keys, string(classValue(class))+chainOf(base, class, v6))
	}
	slices.Sort(out.keys)
	return out
}

// targetsName names it.
func targetsName(base string, v6 bool) string { return setOf(base+".classes", v6) }

// chainOf names the chain of a class of the hook's, in one of the base chains.
func chainOf(base string, class uint32, v6 bool) string {
	return setOf(fmt.Sprintf("%s.%08x", base, class), v6)
}

// split tells by which end the hook's rules are best told apart; nil when it
// is not worth it.
func split(rules []dataplane.FilterRule, isAddressSet func(string) bool) *dispatch {
	if len(rules) <= fewRules {
		return nil
	}
	var best *dispatch
	least := len(rules) / 2
	for _, source := range []bool{false, true} {
		d := &dispatch{source: source}
		names, always := map[string]bool{}, 0
		for _, r := range rules {
			if name := d.end(r); isAddressSet(name) {
				names[name] = true
			} else {
				always++
			}
		}
		if len(names) == 0 {
			continue
		}
		d.sets = slices.Sorted(maps.Keys(names))
		// What an address in one set meets on average.
		if met := always + (len(rules)-always)/len(d.sets); met < least && met*len(d.sets) <= manyRules/2 {
			best, least = d, met
		}
	}
	return best
}

// classify makes the maps from the sets, from the last ones if it can. It
// reports false when there are too many classes.
func (d *dispatch) classify(sources map[string]*set, last *dispatch, rules []dataplane.FilterRule) bool {
	d.of = map[uint32][]int{}
	if last != nil && (last.source != d.source || !slices.Equal(last.sets, d.sets)) {
		last = nil
	}
	if last != nil {
		maps.Copy(d.of, last.of)
	}
	for i, v6 := range []bool{false, true} {
		inputs := make([]*set, len(d.sets))
		for j, name := range d.sets {
			inputs[j] = sources[setOf(name, v6)]
		}
		var before *set
		if last != nil {
			before = last.maps[i]
		}
		d.maps[i] = d.classMap(v6, inputs, before)
		if d.maps[i] == nil || len(d.of) > manyClasses {
			return false
		}
	}
	d.count(last)
	// Classes that nobody is in any more have no chain.
	maps.DeleteFunc(d.of, func(class uint32, _ []int) bool { return d.used[0][class]+d.used[1][class] == 0 })
	return d.rulesInAll(rules) <= manyRules
}

// count counts the spans of each class.
func (d *dispatch) count(last *dispatch) {
	for i, m := range d.maps {
		if last != nil && last.maps[i] == m {
			d.used[i] = last.used[i]
			continue
		}
		var stale, fresh []span
		d.used[i] = map[uint32]int{}
		if last != nil && m.from == last.maps[i] {
			d.used[i] = maps.Clone(last.used[i])
			stale, fresh = m.stale, m.fresh
		} else {
			fresh = m.all()
		}
		for _, s := range stale {
			if d.used[i][s.class]--; d.used[i][s.class] == 0 {
				delete(d.used[i], s.class)
			}
		}
		for _, s := range fresh {
			d.used[i][s.class]++
		}
	}
}

// alike tells whether both tell the same classes apart.
func (d *dispatch) alike(o *dispatch) bool {
	if o == nil || o.source != d.source || !slices.Equal(o.sets, d.sets) {
		return false
	}
	for i := range d.used {
		if len(d.used[i]) != len(o.used[i]) {
			return false
		}
		for class := range d.used[i] {
			if o.used[i][class] == 0 || !slices.Equal(d.of[class], o.of[class]) {
				return false
			}
		}
	}
	return true
}

// rulesInAll counts the rules of the chains of all classes.
func (d *dispatch) rulesInAll(rules []dataplane.FilterRule) int {
	in := map[string]int{}
	always := len(rules)
	for _, r := range rules {
		if _, ours := slices.BinarySearch(d.sets, d.end(r)); ours {
			in[d.end(r)]++
			always--
		}
	}
	n := 0
	for _, sets := range d.of {
		n += always
		for _, i := range sets {
			n += in[d.sets[i]]
		}
	}
	return n
}

// classMap maps every address of the inputs to its class.
func (d *dispatch) classMap(v6 bool, inputs []*set, last *set) *set {
	m := &set{kind: classes, v6: v6, inputs: inputs}
	failed := false
	compute := func(region span) []span {
		parts := make([][]span, len(inputs))
		for i, in := range inputs {
			parts[i] = in.list.overlapping(region)
		}
		out, ok := d.sweep(parts)
		failed = failed || !ok
		return out
	}
	if regions, known := changed(inputs, last); known {
		if slices.Equal(inputs, last.inputs) {
			return last
		}
		m.from = last
		m.list, m.stale, m.fresh = last.list.renew(regions, func(_ []span, region span) []span { return compute(region) })
	} else {
		all := make([][]span, len(inputs))
		for i, in := range inputs {
			all[i] = in.all()
		}
		swept, ok := d.sweep(all)
		m.list, failed = listOf(swept), !ok
	}
	if failed {
		return nil
	}
	return m
}

// classValue is a class's number as the kernel holds it.
func classValue(class uint32) []byte { return binary.NativeEndian.AppendUint32(nil, class) }

func classOf(value []byte) uint32 {
	if len(value) != 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(value)
}

func digest(text string) uint32 {
	sum := sha256.Sum256([]byte(text))
	return binary.BigEndian.Uint32(sum[:])
}

// short is a name that is safe everywhere: the text itself or, where that has
// other characters than names have or is long, a digest of it.
func short(text string) string {
	plain := func(r rune) bool {
		return r == '-' || r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
	}
	if len(text) > 0 && len(text) <= 100 && strings.IndexFunc(text, func(r rune) bool { return !plain(r) }) < 0 {
		return text
	}
	sum := sha256.Sum256([]byte(text))
	return "x." + hex.EncodeToString(sum[:8])
}
