package dnsproxy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// Explanation tells where answers about a name come from.
type Explanation struct {
	Name string `json:"name"`
	// Status is one of exists, wildcard, missing, and outside for a name that is
	// none of the cluster's.
	Status string `json:"status"`
	// Zone of the cluster that the name lies in.
	Zone string `json:"zone,omitempty"`
	// Entry is the name that answers when it is not Name: of a wildcard, or of
	// what a DC/OS name stands for.
	Entry string `json:"entry,omitempty"`
	// Records that are answered, and those that are not.
	Records []ExplainedRecord `json:"records,omitempty"`
	LeftOut []ExplainedRecord `json:"left_out,omitempty"`

	// ForwardZone has the upstreams for a name outside, and Upstreams are in the
	// order in which they would be asked now. Reason tells why nobody is.
	ForwardZone string   `json:"forward_zone,omitempty"`
	Upstreams   []string `json:"upstreams,omitempty"`
	Reason      string   `json:"reason,omitempty"`
	// Cache has what is kept for the name itself.
	Cache []CacheEntry `json:"cache,omitempty"`
}

// ExplainedRecord is one record at the name.
type ExplainedRecord struct {
	// Record in presentation format.
	Record string `json:"record"`
	// Source is what it follows from: a service, a record, a node or a task.
	Source string `json:"source"`
	// Why it is not answered.
	Why string `json:"why,omitempty"`
}

// Explain tells what a name's answers come from, and why others are left out. It
// asks nobody, and reads all documents: it is for people.
func (p *Proxy) Explain(name string) (Explanation, error) {
	wire, err := anyName(name)
	if err != nil {
		return Explanation{}, fmt.Errorf("explain a name: %w", err)
	}
	e := Explanation{Name: dns.Fqdn(strings.ToLower(name)), Status: "outside"}
	t := p.table.Load()
	if t == nil {
		return e, fmt.Errorf("explain %s: there is no table yet", e.Name)
	}
	if !e.explainOurs(t, wire) {
		p.explainForwarding(&e, wire)
	}
	return e, nil
}

// explainOurs tells whether the name is the cluster's.
func (e *Explanation) explainOurs(t *Table, wire string) bool {
	var q query
	q.nameLen = copy(q.name[:], wire)
	what, at := t.locate(q.name[:q.nameLen])
	if what != found && t.mayRename(what, at) && t.renamed(&q) {
		what, at = t.locate(q.name[:q.nameLen])
	}
	if what == outside {
		return false
	}
	ours := string(at.name())
	e.Zone = dns.Fqdn(readable(ours[len(ours)-int(at.apexLen):]))
	asked := string(q.name[:q.nameLen])
	switch {
	case what == missing:
		e.Status, ours = "missing", asked
	case ours == asked:
		e.Status = "exists"
	default:
		e.Status = "wildcard"
	}
	if ours != wire {
		e.Entry = dns.Fqdn(readable(ours))
	}
	e.trace(t, at, what, ours)
	return true
}

// trace finds the sources of the records at a name.
func (e *Explanation) trace(t *Table, at *entry, what outcome, name string) {
	n := t.source
	n.mu.Lock()
	defer n.mu.Unlock()
	shown := map[string]uint32{}
	if what == found {
		for _, set := range at.shownSets() {
			for _, r := range at.shownRecords(&set) {
				shown[string(at.body(&r))] = set.owner
			}
		}
	}
	n.eachSource(func(source string, claim func(*claims)) bool {
		var left []leftOut
		c := &claims{names: n, left: &left}
		claim(c)
		for _, one := range c.list {
			if one.name != name || one.rtype == 0 {
				continue
			}
			r := ExplainedRecord{Record: presentation(name, one.body), Source: source}
			if owner, ok := shown[one.body]; ok && owner == one.owner {
				e.Records = append(e.Records, r)
				continue
			}
			if r.Why = "another source's records of the name go before"; one.rtype == dns.TypePTR {
				r.Why = "the address has one name, and another goes before"
			}
			e.LeftOut = append(e.LeftOut, r)
		}
		for _, one := range left {
			if one.name == name && one.rtype != 0 {
				e.LeftOut = append(e.LeftOut, ExplainedRecord{Record: presentation(name, one.body), Source: source, Why: one.why})
			}
		}
		for _, err := range c.errors {
			if strings.Contains(err.Error(), readable(name)) {
				e.LeftOut = append(e.LeftOut, ExplainedRecord{Source: source, Why: err.Error()})
			}
		}
		return true
	})
	byText := func(a, b ExplainedRecord) int {
		return strings.Compare(a.Record+a.Source+a.Why, b.Record+b.Source+b.Why)
	}
	slices.SortFunc(e.Records, byText)
	slices.SortFunc(e.LeftOut, byText)
	e.Records, e.LeftOut = slices.Compact(e.Records), slices.Compact(e.LeftOut)
}

// presentation of a record as zone files have it.
func presentation(name, body string) string {
	rr, _, err := dns.UnpackRR([]byte(name+body), 0)
	if err != nil {
		return fmt.Sprintf("%s ?", readable(name))
	}
	return strings.ReplaceAll(rr.String(), "\t", " ")
}

// explainForwarding tells who would be asked.
func (p *Proxy) explainForwarding(e *Explanation, wire string) {
	e.Cache, _ = p.Dump(wireText(wire), 0)
	e.Cache = slices.DeleteFunc(e.Cache, func(c CacheEntry) bool { return c.Name != e.Name })
	zone := p.forward.routes.Load().match([]byte(wire))
	if zone == nil || len(zone.upstreams) == 0 {
		e.Reason = "no upstream is set for the name: it is refused"
		return
	}
	if zone.zone == "\x00" && isSpecial([]byte(wire)[topLabel([]byte(wire)):]) {
		e.Reason = "the name has a meaning of its own and is answered here (RFC 6761, RFC 7686)"
		return
	}
	e.ForwardZone = zone.name
	for _, u := range zone.order(p.now(), nil) {
		if !slices.Contains(e.Upstreams, u.name) {
			e.Upstreams = append(e.Upstreams, u.name)
		}
	}
}

func wireText(wire string) string {
	if wire == "\x00" {
		return "."
	}
	return readable(wire)
}
