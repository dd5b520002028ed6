package vip

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/weirproject/weir/api"
)

// ExplainOptions are what Explain may ask beside the snapshot.
type ExplainOptions struct {
	StatusOptions
	// Aliases of the domain.
	Aliases []string
	// Protocol of the service that is meant; empty means any.
	Protocol api.Protocol
	// Reach tries whether a backend answers from this node; nil: not tried.
	Reach func(protocol api.Protocol, backend netip.AddrPort) error
	// Resolve asks this node's DNS; nil: not asked.
	Resolve func(name string) ([]netip.Addr, error)
}

// Explain goes the way from a VIP's name, as people write it, to its backends,
// and stops at the first step that fails, with what to do about it.
func Explain(s *api.Snapshot, name string, o ExplainOptions) []api.VIPStep {
	e := explanation{snapshot: s, options: &o}
	for _, step := range []func() api.VIPStep{
		func() api.VIPStep { return e.name(name) },
		e.service, e.address, e.backends, e.health, e.reachable, e.programmed, e.dns,
	} {
		done := step()
		e.steps = append(e.steps, done)
		if !done.OK {
			break
		}
	}
	return e.steps
}

type explanation struct {
	snapshot *api.Snapshot
	options  *ExplainOptions
	steps    []api.VIPStep
	query    query
	doc      *api.Service
	status   api.VIPStatus
}

func good(step, evidence string, args ...any) api.VIPStep {
	return api.VIPStep{Step: step, OK: true, Evidence: fmt.Sprintf(evidence, args...)}
}

func bad(step, next, evidence string, args ...any) api.VIPStep {
	return api.VIPStep{Step: step, Evidence: fmt.Sprintf(evidence, args...), Next: next}
}

func (e *explanation) name(name string) api.VIPStep {
	const step = "name"
	q, err := parseQuery(name, append([]string{e.options.Domain}, e.options.Aliases...))
	if err != nil {
		return bad(step, "write web, web.shop, web.shop:80, an address, or the DNS name of the VIP", "%q names no VIP: %v", name, err)
	}
	e.query = q
	return good(step, "%q is read as %s", name, q)
}

func (e *explanation) service() api.VIPStep {
	const step = "service"
	var found []*api.Service
	var elsewhere []string
	for i := range e.snapshot.Services {
		doc := &e.snapshot.Services[i]
		if e.options.Protocol != "" && doc.EffectiveProtocol() != e.options.Protocol {
			continue
		}
		if e.query.matches(e.snapshot, doc) {
			found = append(found, doc)
		} else if e.near(doc) {
			elsewhere = append(elsewhere, fmt.Sprintf("%s (%s, %s)", doc.Key(), doc.EffectiveProtocol(), joined(doc.VIPs)))
		}
	}
	if len(found) == 0 {
		next := "apply a service document whose vips have it; weir status lists the files that were refused"
		if len(elsewhere) > 0 {
			next = "there is " + strings.Join(elsewhere, ", ") + ": ask for that, or correct its document"
		}
		return bad(step, next, "none of %d services has %s", len(e.snapshot.Services), e.query)
	}
	e.doc = found[0]
	evidence := fmt.Sprintf("%s, %s, serves %s", e.doc.Key(), e.doc.EffectiveProtocol(), joined(e.doc.VIPs))
	for _, other := range found[1:] {
		evidence += fmt.Sprintf("; so does %s, %s", other.Key(), other.EffectiveProtocol())
	}
	return good(step, "%s", evidence)
}

// near tells whether the service has the name in another namespace, or at
// another port.
func (e *explanation) near(doc *api.Service) bool {
	q := e.query
	q.port = 0
	if q.label != "" {
		q.namespace = doc.EffectiveNamespace()
	}
	return q.matches(e.snapshot, doc)
}

func joined[T fmt.Stringer](all []T) string {
	var texts []string
	for _, one := range all {
		texts = append(texts, one.String())
	}
	return strings.Join(texts, ", ")
}

func (e *explanation) address() api.VIPStep {
	const step = "address"
	for _, skipped := range Check(e.snapshot) {
		if skipped.Service == e.doc.Key() && skipped.Protocol == e.doc.EffectiveProtocol() {
			return bad(step, "give it another address or port, or set the range", "%s: %s", skipped.Field, skipped.Reason)
		}
	}
	e.status = status(e.snapshot, e.doc, newFleet(e.snapshot), &e.options.StatusOptions)
	return good(step, "clients connect to %s", joined(e.status.Addresses))
}

func (e *explanation) backends() api.VIPStep {
	const step = "backends"
	if len(e.status.Backends) == 0 {
		return bad(step, "add backends to the service's document", "it has no backends, so connections are refused")
	}
	usable := 0
	var out []string
	for i, b := range e.doc.Backends {
		switch {
		case b.State == api.Down || b.State == api.Draining:
			out = append(out, fmt.Sprintf("%s is set %s", b.Address, b.State))
		case b.EffectiveWeight() == 0:
			out = append(out, fmt.Sprintf("%s has the weight 0", e.doc.Backends[i].Address))
		default:
			usable++
		}
	}
	evidence := fmt.Sprintf("%d of %d may get connections", usable, len(e.doc.Backends))
	if len(out) > 0 {
		evidence += ": " + strings.Join(out, ", ")
	}
	if usable == 0 {
		return bad(step, "set one up, with a weight of 1 or more, in the service's document", "%s", evidence)
	}
	return good(step, "%s", evidence)
}

func (e *explanation) health() api.VIPStep {
	const step = "health"
	up := 0
	var reasons []string
	for _, b := range e.status.Backends {
		if b.State == api.Up && b.Weight > 0 {
			up++
		}
		if b.Reason != "" {
			reasons = append(reasons, fmt.Sprintf("%s is %s (%s)", b.Address, b.State, b.Reason))
		}
	}
	evidence := fmt.Sprintf("%d of %d are up", up, len(e.status.Backends))
	if e.doc.Health == nil {
		evidence += "; no health check is given, so they count as healthy"
	}
	if len(reasons) > 0 {
		evidence += ": " + strings.Join(reasons, ", ")
	}
	if up == 0 {
		return bad(step, "look at the backends, or at the check in the service's document", "%s", evidence)
	}
	return good(step, "%s", evidence)
}

func (e *explanation) reachable() api.VIPStep {
	const step = "reachable"
	if e.options.Reach == nil || e.status.Protocol == api.UDP {
		return good(step, "not tried")
	}
	var failed []string
	reached := 0
	for _, b := range e.status.Backends {
		if b.State != api.Up {
			continue
		}
		if err := e.options.Reach(e.status.Protocol, b.Address); err != nil {
			failed = append(failed, fmt.Sprintf("%s: %v", b.Address, err))
		} else {
			reached++
		}
	}
	evidence := fmt.Sprintf("%d of %d that are up answer this node", reached, reached+len(failed))
	if len(failed) > 0 {
		evidence += "; " + strings.Join(failed, "; ")
		return bad(step, "look at the route, the zones' rules (weir zone explain) and the process there", "%s", evidence)
	}
	return good(step, "%s", evidence)
}

func (e *explanation) programmed() api.VIPStep {
	const step = "programmed"
	if !e.status.Programmed {
		return bad(step, "weir status tells why the component vip did not apply it", "this node's kernel does not hold it")
	}
	return good(step, "this node's kernel holds it; %d connections so far, %d refused, %d over the limit", e.status.Connections, e.status.Refused, e.status.Limited)
}

func (e *explanation) dns() api.VIPStep {
	const step = "dns"
	named := map[string]bool{}
	for i := range e.snapshot.Services {
		nameVIPs(named, &e.snapshot.Services[i])
	}
	names := dnsNames(e.doc, named, e.options.Domain)
	if len(names) == 0 {
		return good(step, "it has no name of its own, since %s is the name of another VIP", e.doc.Key())
	}
	if e.options.Resolve == nil {
		return good(step, "its names are %s; not asked", strings.Join(names, ", "))
	}
	var answers []string
	for _, name := range names {
		got, err := e.options.Resolve(name)
		if err != nil {
			return bad(step, "weir dns explain "+name, "%s does not resolve on this node: %v", name, err)
		}
		if !slices.ContainsFunc(e.status.Addresses, func(a netip.AddrPort) bool { return slices.Contains(got, a.Addr()) }) {
			return bad(step, "look for a record or a resolver that answers in its place: weir dns explain "+name,
				"%s resolves to %v, which is none of its addresses", name, got)
		}
		answers = append(answers, fmt.Sprintf("%s is %s", name, joined(got)))
	}
	return good(step, "%s", strings.Join(answers, "; "))
}
