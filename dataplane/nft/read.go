package nft

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/dataplane"
)

// hookOf says where the chain is hooked; nil for a chain that others jump to.
func hookOf(chain string) (*nftables.ChainHook, *nftables.ChainPriority) {
	switch chain {
	case addressedChain:
		// Behind conntrack, at -200, and before destinations are translated, at
		// -100.
		return nftables.ChainHookPrerouting, nftables.ChainPriorityMangle
	case inputChain:
		return nftables.ChainHookInput, nftables.ChainPriorityFilter
	case forwardChain:
		return nftables.ChainHookForward, nftables.ChainPriorityFilter
	case outputChain:
		return nftables.ChainHookOutput, nftables.ChainPriorityFilter
	default:
		return nil, nil
	}
}

// findTable gives our table, nil when there is none.
func findTable(conn *nftables.Conn) (*nftables.Table, error) {
	tables, err := conn.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil, fmt.Errorf("list tables: %w", inWords(err))
	}
	for _, t := range tables {
		if t.Name == dataplane.TableName && t.Family == nftables.TableFamilyINet {
			return t, nil
		}
	}
	return nil, nil
}

// read lists what our table holds in the kernel, and the addresses in the sets
// that learn, with the end of their stay.
func read(conn *link) (*content, map[string]map[netip.Addr]time.Time, error) {
	table, err := findTable(conn.Conn)
	if err != nil || table == nil {
		return &content{}, nil, err
	}
	c := newContent()
	c.odd = table.Flags != 0 // dormant: the chains see no packet
	if err := c.readChains(conn, table); err != nil {
		return nil, nil, err
	}
	c.readCounters(conn, table)
	stays := c.readSets(conn, table)
	conn.dirty = conn.dirty || c.odd
	return c, stays, nil
}

// readChains lists our chains and their rules.
func (c *content) readChains(conn *link, table *nftables.Table) error {
	chains, err := conn.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return fmt.Errorf("list chains: %w", inWords(err))
	}
	for _, chain := range chains {
		if chain.Table.Name != table.Name {
			continue
		}
		policy, ours := ourChain(chain)
		if !ours {
			c.odd = true
			continue
		}
		c.chains[chain.Name] = policy
	}
	return c.readRules(conn)
}

// readRules lists the marks of all rules of our table. The library's listing
// is of one chain, and fails for a rule of somebody's that it cannot read.
func (c *content) readRules(conn *link) error {
	table, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: unix.NFTA_RULE_TABLE, Data: append([]byte(dataplane.TableName), 0)}})
	if err != nil {
		return err
	}
	request := netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETRULE, Flags: netlink.Request | netlink.Dump},
		Data:   append([]byte{unix.NFPROTO_INET, 0, 0, 0}, table...), // struct nfgenmsg
	}
	answers, err := conn.socket.Execute(request)
	if err != nil {
		return fmt.Errorf("list rules: %w", inWords(err))
	}
	for _, m := range answers {
		attributes, err := netlink.UnmarshalAttributes(m.Data[4:])
		if err != nil {
			return fmt.Errorf("read rule: %w", err)
		}
		chain, r := "", rule{}
		for _, a := range attributes {
			switch a.Type {
			case unix.NFTA_RULE_CHAIN:
				chain = strings.TrimRight(string(a.Data), "\x00")
			case unix.NFTA_RULE_USERDATA:
				r.name, r.mark = readMarks(a.Data)
			}
		}
		c.rules[chain] = append(c.rules[chain], r)
	}
	return nil
}

// ourChain tells whether the chain is one of ours, hooked where ours is.
func ourChain(c *nftables.Chain) (nftables.ChainPolicy, bool) {
	hook, priority := hookOf(c.Name)
	if hook == nil && c.Hooknum == nil {
		return nftables.ChainPolicyAccept, true
	}
	if hook == nil || c.Hooknum == nil || c.Priority == nil || c.Policy == nil {
		return 0, false
	}
	return *c.Policy, *c.Hooknum == *hook && *c.Priority == *priority && c.Type == nftables.ChainTypeFilter
}

// readCounters lists the names of our counters.
func (c *content) readCounters(conn *link, table *nftables.Table) {
	found, err := conn.GetObjects(table)
	if err != nil {
		c.odd = true // as with rules
		return
	}
	for _, o := range found {
		if counter, ok := o.(*nftables.CounterObj); ok {
			c.counters[counter.Name] = true
		} else {
			c.odd = true
		}
	}
}

// readSets lists our named sets with their elements.
func (c *content) readSets(conn *link, table *nftables.Table) map[string]map[netip.Addr]time.Time {
	sets, err := conn.GetSets(table)
	if err != nil {
		c.odd = true // as with rules
		return nil
	}
	stays := map[string]map[netip.Addr]time.Time{}
	for _, s := range sets {
		if s.Anonymous {
			continue // part of a rule, and constant
		}
		k, v6, ours := kindOf(s)
		if !ours {
			c.odd = true
			continue
		}
		found := &set{kind: k, v6: v6}
		c.sets[s.Name] = found
		if k == meter {
			continue
		}
		elements, err := conn.GetSetElements(s)
		if err != nil {
			c.odd = true
			continue
		}
		switch k {
		case learnt:
			stays[s.Name] = stayOf(elements)
		case endpoints:
			for _, e := range elements {
				found.keys = append(found.keys, string(e.Key))
			}
			slices.Sort(found.keys)
		case verdicts:
			for _, e := range elements {
				found.keys = append(found.keys, string(e.Key)+chainIn(e))
			}
			slices.Sort(found.keys)
		case hosts, hostClasses:
			found.spans = hostSpans(elements)
		default:
			found.spans = spansOf(elements)
		}
	}
	return stays
}

// kindOf tells what a set in the kernel is; ours is false when it is like none
// of ours.
func kindOf(s *nftables.Set) (k kind, v6, ours bool) {
	v6 = strings.Contains(s.KeyType.Name, nftables.TypeIP6Addr.Name)
	address := s.KeyType.Name == nftables.TypeIPAddr.Name || s.KeyType.Name == nftables.TypeIP6Addr.Name
	switch {
	case s.IsMap && s.KeyType.Name == nftables.TypeVerdict.Name: // what the library makes of a map to verdicts
		return verdicts, strings.HasSuffix(nominal(s.Name), "_6"), !s.Interval && !s.HasTimeout && !s.Dynamic
	case s.Constant:
		return 0, v6, false
	case address && s.Dynamic && s.HasTimeout:
		return meter, v6, !s.IsMap && !s.Interval
	case address && s.HasTimeout:
		return learnt, v6, !s.IsMap && !s.Interval
	case address && s.IsMap && s.Interval:
		return classes, v6, s.DataType.Name == nftables.TypeMark.Name
	case address && s.IsMap:
		return hostClasses, v6, s.DataType.Name == nftables.TypeMark.Name
	case address && !s.Interval:
		return hosts, v6, !s.Concatenation && !s.Dynamic
	case address:
		return addresses, v6, s.Interval && !s.Concatenation && !s.Dynamic
	default:
		return endpoints, v6, s.KeyType.Name == endpointType(v6).Name && !s.IsMap && !s.Interval && !s.HasTimeout && !s.Dynamic
	}
}

func stayOf(elements []nftables.SetElement) map[netip.Addr]time.Time {
	stays := map[netip.Addr]time.Time{}
	for _, e := range elements {
		if a, ok := netip.AddrFromSlice(e.Key); ok {
			stays[a] = time.Now().Add(e.Expires)
		}
	}
	return stays
}

// chainIn gives the chain that an element of a map leads to. The library gives
// a verdict's attributes as they are.
func chainIn(e nftables.SetElement) string {
	if len(e.Val) == 0 {
		return ""
	}
	attributes, err := netlink.UnmarshalAttributes(e.Val)
	for _, a := range attributes {
		if err == nil && a.Type == unix.NFTA_VERDICT_CHAIN {
			return strings.TrimRight(string(a.Data), "\x00")
		}
	}
	return ""
}
