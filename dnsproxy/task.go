package dnsproxy

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"github.com/weirproject/weir/api"
)

// Task is a running instance of an app, for its names.
type Task struct {
	// ID is unique in the cluster.
	ID string
	// Path of the app, from the root: shop, web for /shop/web. Tasks that a
	// framework launched have one segment, their name.
	Path []string
	// Service is the framework that launched it; empty for the built-in
	// scheduler, whose tasks have names below marathon and below their group.
	Service string
	// Node that it runs on, and the node's addresses.
	Node          string
	NodeAddresses []netip.Addr
	// Addresses of its own that other nodes reach; none when it shares the
	// node's, or is reached through ports of the node only.
	Addresses []netip.Addr
	Ports     []TaskPort
	// Down says why it is not answered, such as "is starting" or "fails its health
	// check"; empty for one that runs and is healthy.
	Down string
}

// TaskPort is one port of a task.
type TaskPort struct {
	Name string // may be empty
	// Port at the task's own addresses; 0 when it has none.
	Port uint16
	// HostPort at the node's addresses; 0 for none.
	HostPort uint16
	Protocol api.Protocol // tcp when empty
}

// builtIn is what the built-in scheduler is called in names.
const builtIn = "marathon"

// form is one way of naming an app: the label that is the task's, and what
// follows it below the domain.
type form struct {
	first, rest string
	exact       bool // nothing was lost on the way from the app's own name
}

func (f form) key() string { return f.first + "." + f.rest }

// app is what tasks of one name have in common.
type app struct {
	key   string
	owner string
	forms []form
	// plain tells of each form whether the app has its first label without a
	// suffix: of those that want one name, only the first does.
	plain []bool
	tasks map[string]*Task
}

func appKey(t *Task) string { return t.Service + "\x00" + strings.Join(t.Path, "/") }

func newApp(t *Task) *app {
	a := &app{key: appKey(t), owner: "app /" + strings.Join(t.Path, "/"), tasks: map[string]*Task{}}
	if t.Service != "" {
		a.owner = "task " + strings.Join(t.Path, "/") + " of " + t.Service
	}
	a.forms = formsOf(t)
	a.plain = make([]bool, len(a.forms))
	return a
}

// formsOf an app: web.shop.marathon, web-shop.marathon, and web.shop for those of
// the built-in scheduler.
func formsOf(t *Task) []form {
	service := t.Service
	if service == "" {
		service = builtIn
	}
	framework := fragment(service)
	path := slices.Clone(t.Path)
	slices.Reverse(path)
	whole := strings.Join(path, ".")
	dotted, flat := fragment(whole), label(whole)
	if framework == "" || flat == "" {
		return nil
	}
	isSame := framework == service
	first, rest, _ := strings.Cut(dotted, ".")
	forms := []form{{first: flat, rest: framework, exact: isSame && flat == whole}}
	if rest != "" {
		forms = append(forms, form{first: first, rest: rest + "." + framework, exact: isSame && dotted == whole})
	}
	if t.Service == "" {
		if rest == "" {
			rest = api.DefaultNamespace
		}
		forms = append(forms, form{first: first, rest: rest, exact: dotted == whole})
	}
	return forms
}

// label of the app in one of its forms.
func (a *app) label(i int) string {
	if a.plain[i] {
		return a.forms[i].first
	}
	return distinct(a.forms[i].first, a.key)
}

// task claims a task's share in its app's names, and a name of its own.
func (c *claims) task(a *app, t *Task) {
	if t.Down != "" && c.left == nil {
		return
	}
	mark := len(c.list)
	for _, d := range c.domains {
		c.taskIn(d, a, t)
	}
	if c.options.DCOS && len(a.forms) > 0 {
		c.dcosTask(a, t)
	}
	if t.Down != "" {
		c.leave(mark, "the task "+t.ID+" "+t.Down)
	}
}

func (c *claims) taskIn(domain string, a *app, t *Task) {
	c.asDerived(a.owner, rankTask)
	if len(a.forms) == 0 {
		c.fail("%s: nothing of the name can be in a DNS name", a.owner)
		return
	}
	own := c.below(domain, distinct(a.forms[0].first, t.ID), a.forms[0].rest)
	if own == "" {
		return
	}
	addresses := t.reachedAt()
	for _, a := range addresses {
		c.address(own, DefaultTTL, a)
	}
	node := ""
	if t.Node != "" {
		node = c.below(domain, t.Node, "node")
	}
	for i, f := range a.forms {
		first := a.label(i)
		c.addresses(c.below(domain, first, f.rest), addresses)
		for _, where := range []string{"slave", "agent"} {
			c.addresses(c.below(domain, first, f.rest, where), t.nodeAddresses())
		}
		for _, p := range t.Ports {
			c.taskPort(domain, first, f, p.at(t), p, own, "")
			if node != "" {
				c.taskPort(domain, first, f, p.HostPort, p, node, "slave")
			}
		}
	}
	c.sharedPorts(domain, a, t, own)
}

// taskPort claims a port's SRV records: by the task's name, and by the port's.
func (c *claims) taskPort(domain, first string, f form, number uint16, p TaskPort, target, where string) {
	if number == 0 {
		return
	}
	parts := func(labels ...string) []string {
		if where != "" {
			return append(labels, where)
		}
		return labels
	}
	proto := p.protocol()
	c.port(domain, number, target, parts(serviceLabel(first), proto, f.rest)...)
	if name := label(p.Name); name != "" {
		c.port(domain, number, target, parts(serviceLabel(name), serviceLabel(first), proto, f.rest)...)
		if where == "" {
			c.port(domain, number, target, serviceLabel(name), proto, first, f.rest)
		}
	}
}

// sharedPorts claims _<port>._<proto>.<service>: the ports of that name of all
// that one service launched. A task of that name hides it.
func (c *claims) sharedPorts(domain string, a *app, t *Task, target string) {
	for _, p := range t.Ports {
		name := label(p.Name)
		if number := p.at(t); name != "" && number > 0 {
			rest := a.forms[0].rest
			c.asDerived("the ports "+name+" of "+rest, rankShared)
			c.port(domain, number, target, serviceLabel(name), p.protocol(), rest)
		}
	}
}

func (c *claims) port(domain string, number uint16, target string, parts ...string) {
	if name := c.below(domain, parts...); name != "" {
		c.service(name, 0, 1, number, target)
	}
}

// addresses claims address records that are not the addresses' own names.
func (c *claims) addresses(name string, all []netip.Addr) {
	if name == "" {
		return
	}
	for _, a := range all {
		a = a.Unmap()
		c.add(name, addressType(a), DefaultTTL, string(a.AsSlice()))
	}
}

// reachedAt are the task's addresses, or the node's when it has none.
func (t *Task) reachedAt() []netip.Addr {
	if len(t.Addresses) > 0 {
		return t.Addresses
	}
	return t.nodeAddresses()
}

// nodeAddresses are the node's first address of each family.
func (t *Task) nodeAddresses() []netip.Addr {
	var all []netip.Addr
	for _, rtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
		for _, a := range t.NodeAddresses {
			if addressType(a.Unmap()) == rtype {
				all = append(all, a)
				break
			}
		}
	}
	return all
}

// at is the port where the task is reached.
func (p TaskPort) at(t *Task) uint16 {
	if len(t.Addresses) > 0 && p.Port > 0 {
		return p.Port
	}
	return p.HostPort
}

func (p TaskPort) protocol() string {
	if p.Protocol == "" {
		return "_" + string(api.TCP)
	}
	return "_" + string(p.Protocol)
}
