package nft

import (
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/weirproject/weir/dataplane"
)

// hookOf says where the chain is hooked; nil for a chain that is not ours.
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

// read lists what our table holds in the kernel.
func read(conn *nftables.Conn) (*content, error) {
	table, err := findTable(conn)
	if err != nil || table == nil {
		return &content{}, err
	}
	c := newContent()
	c.odd = table.Flags != 0 // dormant: the chains see no packet
	if err := c.readChains(conn, table); err != nil {
		return nil, err
	}
	c.readSets(conn, table)
	return c, nil
}

// readRules lists the rules alone, by chain.
func readRules(conn *nftables.Conn) (map[string][]rule, error) {
	table, err := findTable(conn)
	if err != nil || table == nil {
		return nil, err
	}
	c := newContent()
	return c.rules, c.readChains(conn, table)
}

// readChains lists our chains and their rules.
func (c *content) readChains(conn *nftables.Conn, table *nftables.Table) error {
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
		found, err := conn.GetRules(table, chain)
		if err != nil {
			// Somebody's rule that the library cannot read; if it is the
			// kernel that fails, writing will fail too and say why.
			c.odd = true
			continue
		}
		for _, r := range found {
			c.rules[chain.Name] = append(c.rules[chain.Name], foundRule(r))
		}
	}
	return nil
}

// ourChain tells whether the chain is one of ours, hooked where ours is.
func ourChain(c *nftables.Chain) (nftables.ChainPolicy, bool) {
	hook, priority := hookOf(c.Name)
	if hook == nil || c.Hooknum == nil || c.Priority == nil || c.Policy == nil {
		return 0, false
	}
	return *c.Policy, *c.Hooknum == *hook && *c.Priority == *priority && c.Type == nftables.ChainTypeFilter
}

// readSets lists our named sets with their elements.
func (c *content) readSets(conn *nftables.Conn, table *nftables.Table) {
	sets, err := conn.GetSets(table)
	if err != nil {
		c.odd = true // as with rules
		return
	}
	for _, s := range sets {
		if s.Anonymous {
			continue // part of a rule, and constant
		}
		v6 := s.KeyType.Bytes == nftables.TypeIP6Addr.Bytes
		if !s.Interval || s.IsMap || s.HasTimeout || s.Dynamic || s.Constant || s.Concatenation ||
			s.KeyType.Name != nftables.TypeIPAddr.Name && s.KeyType.Name != nftables.TypeIP6Addr.Name {
			c.odd = true
			continue
		}
		found, err := conn.GetSetElements(s)
		if err != nil {
			c.odd = true
			continue
		}
		c.sets[s.Name] = addressSet{v6: v6, spans: spansOf(found)}
	}
}

// foundRule reads a rule's marks and counter.
func foundRule(found *nftables.Rule) rule {
	r := rule{}
	r.name, r.mark = readMarks(found.UserData)
	for _, e := range found.Exprs {
		if c, ok := e.(*expr.Counter); ok {
			r.counter = c
		}
	}
	return r
}
