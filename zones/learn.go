package zones

import (
	"slices"
	"strings"

	"github.com/weirproject/weir/dataplane"
)

// Names finds the dynamic sets that a DNS name teaches. It never changes.
type Names struct {
	exact map[string][]string // sets by name
	below map[string][]string // sets by what follows "*."
}

// NamesOf reads the names of a ruleset's dynamic sets; nil has none.
func NamesOf(r *dataplane.Ruleset) Names {
	n := Names{exact: map[string][]string{}, below: map[string][]string{}}
	if r == nil {
		return n
	}
	for _, d := range r.Dynamic {
		for _, name := range d.Names {
			if parent, isTree := strings.CutPrefix(name, "*."); isTree {
				n.below[parent] = append(n.below[parent], d.Name)
			} else {
				n.exact[name] = append(n.exact[name], d.Name)
			}
		}
	}
	return n
}

// Empty tells whether no name teaches anything.
func (n Names) Empty() bool { return len(n.exact)+len(n.below) == 0 }

// Sets are those that an answer for the name teaches its addresses, each once:
// hand them to dataplane.Learner before the answer goes out. Of an answer with
// CNAMEs it is the name that was asked for that counts.
func (n Names) Sets(name string) []string {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	all := slices.Clone(n.exact[name])
	for rest := name; ; {
		_, parent, more := strings.Cut(rest, ".")
		if !more {
			break
		}
		all = append(all, n.below[parent]...)
		rest = parent
	}
	slices.Sort(all)
	return slices.Compact(all)
}
