package container

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/dataplane"
)

// setRules makes the table hold what is wanted, in one atomic batch, and has
// the kernel forget UDP flows to published ports that are new or gone.
func (s *Sink) setRules(t Table) error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	if len(t.Networks) == 0 {
		held, err := readTable(conn)
		if err != nil || held == nil {
			return err
		}
		conn.DelTable(&nftables.Table{Name: dataplane.ContainerTableName, Family: nftables.TableFamilyINet})
		s.removed()
		return conn.Flush()
	}
	own, err := ownAddresses(t)
	if err != nil {
		return err
	}
	wanted := compile(t, own)
	held, err := readTable(conn)
	if err != nil {
		return err
	}
	if held != nil && held.equal(wanted.lines()) {
		return nil
	}
	if err := write(conn, wanted); err != nil {
		return err
	}
	s.wrote()
	return forget(changedPorts(held, wanted.lines()), own)
}

// lines is a table's content as text: what its chains hold, in their order, and
// what its sets hold, sorted.
type lines map[string][]string

func (l lines) equal(o lines) bool {
	if len(l) != len(o) {
		return false
	}
	for name, all := range l {
		if other, there := o[name]; !there || !slices.Equal(all, other) {
			return false
		}
	}
	return true
}

func (c content) lines() lines {
	l := lines{chainIn: nil, chainOut: nil, chainLeave: nil, chainShared: nil}
	for _, r := range c.rules {
		l[r.chain] = append(l[r.chain], r.comment)
	}
	for name, all := range c.sets {
		l[name] = nil
		for _, a := range all {
			l[name] = append(l[name], a.String())
		}
	}
	return l
}

// readTable reads the table back; nil when there is none.
func readTable(conn *nftables.Conn) (lines, error) {
	tables, err := conn.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil, fmt.Errorf("list tables: %w", err)
	}
	at := slices.IndexFunc(tables, func(t *nftables.Table) bool { return t.Name == dataplane.ContainerTableName })
	if at < 0 {
		return nil, nil
	}
	held, table := lines{}, tables[at]
	chains, err := conn.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil, fmt.Errorf("list chains: %w", err)
	}
	for _, c := range chains {
		if c.Table.Name != table.Name {
			continue
		}
		held[c.Name] = nil
		rules, err := conn.GetRules(table, c)
		if err != nil {
			return nil, fmt.Errorf("list rules of %s: %w", c.Name, err)
		}
		for _, r := range rules {
			comment, _ := userdata.GetString(r.UserData, userdata.TypeComment)
			held[c.Name] = append(held[c.Name], comment)
		}
	}
	sets, err := conn.GetSets(table)
	if err != nil {
		return nil, fmt.Errorf("list sets: %w", err)
	}
	for _, set := range sets {
		elements, err := conn.GetSetElements(set)
		if err != nil {
			return nil, fmt.Errorf("list set %s: %w", set.Name, err)
		}
		var all []netip.Addr
		for _, e := range elements {
			all = append(all, addrOf(e.Key))
		}
		slices.SortFunc(all, netip.Addr.Compare)
		held[set.Name] = nil
		for _, a := range all {
			held[set.Name] = append(held[set.Name], a.String())
		}
	}
	return held, nil
}

func write(conn *nftables.Conn, c content) error {
	table := &nftables.Table{Name: dataplane.ContainerTableName, Family: nftables.TableFamilyINet}
	conn.AddTable(table) // so that there is one to remove
	conn.DelTable(table)
	conn.AddTable(table)
	chains := map[string]*nftables.Chain{}
	for _, chain := range chainsOf(table) {
		chains[chain.Name] = conn.AddChain(chain)
	}
	number := uint32(0)
	for name, all := range c.sets {
		// The number counts within the batch. The library would take it from a
		// counter that others of the process use at the same time.
		number++
		set := &nftables.Set{Table: table, Name: name, ID: number, KeyType: nftables.TypeIPAddr}
		if strings.HasSuffix(name, "6") {
			set.KeyType = nftables.TypeIP6Addr
		}
		var elements []nftables.SetElement
		for _, a := range all {
			elements = append(elements, nftables.SetElement{Key: a.AsSlice()})
		}
		if err := conn.AddSet(set, elements); err != nil {
			return fmt.Errorf("add set %s: %w", name, err)
		}
	}
	for _, r := range c.rules {
		conn.AddRule(&nftables.Rule{Table: table, Chain: chains[r.chain], Exprs: r.exprs, UserData: userdata.AppendString(nil, userdata.TypeComment, r.comment)})
	}
	return conn.Flush()
}

// ownAddresses lists where ports are published: all addresses of the node but
// those of lo and of the link of virtual addresses. Those of our bridges are
// what the table wants, whatever they have now.
func ownAddresses(t Table) ([]netip.Addr, error) {
	all, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	links, err := readLinks()
	if err != nil {
		return nil, err
	}
	passed := map[int]bool{}
	for name, l := range links {
		passed[l.Attrs().Index] = name == "lo" || name == dataplane.BalancerLink || ours(name, l.Type())
	}
	var own []netip.Addr
	for _, n := range t.Networks {
		for _, g := range n.Gateways {
			own = append(own, g.Addr())
		}
	}
	for _, a := range all {
		if ip := addrOf(a.IP); ip.IsValid() && !passed[a.LinkIndex] && !ip.IsLinkLocalUnicast() {
			own = append(own, ip)
		}
	}
	return own, nil
}

// udpPorts are published ports, by number.
type udpPorts map[uint16]bool

// changedPorts lists the UDP ports whose rules differ.
func changedPorts(held, wanted lines) udpPorts {
	changed := udpPorts{}
	note := func(from, others []string) {
		for _, comment := range from {
			var port uint16
			if n, _ := fmt.Sscanf(comment, "udp/%d ", &port); n == 1 && !slices.Contains(others, comment) {
				changed[port] = true
			}
		}
	}
	note(held[chainIn], wanted[chainIn])
	note(wanted[chainIn], held[chainIn])
	return changed
}

type udpFlows struct {
	ports udpPorts
	own   []netip.Addr
}

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (f udpFlows) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	return flow.Forward.Protocol == unix.IPPROTO_UDP && f.ports[flow.Forward.DstPort] && slices.Contains(f.own, addrOf(flow.Forward.DstIP))
}

// forget has conntrack forget UDP flows. NAT is decided by a flow's first packet
// alone, and a client that goes on sending would stay with a container that is
// gone, or with the node itself, for as long as it sends.
func forget(ports udpPorts, own []netip.Addr) error {
	if len(ports) == 0 {
		return nil
	}
	var faults []error
	for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
		_, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, family, udpFlows{ports, own})
		if err != nil {
			faults = append(faults, fmt.Errorf("forget UDP flows to published ports: %w", err))
		}
	}
	return errors.Join(faults...)
}
