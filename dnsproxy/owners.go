package dnsproxy

// ownerName finds the name of an owner by its number. Only people and errors
// ask for it, so it may take its time.
func (n *names) ownerName(id uint32) string {
	if id == addressOwner {
		return "the address"
	}
	var unused []leftOut
	c := &claims{names: n, owners: map[uint32]string{}, left: &unused}
	n.eachSource(func(_ string, claim func(*claims)) bool {
		claim(c)
		c.list, c.errors, unused = c.list[:0], nil, unused[:0]
		return c.owners[id] == ""
	})
	if c.owners[id] == "" {
		return "another"
	}
	return c.owners[id]
}

// eachSource calls f with each source's name for people and with what makes its
// claims, until it says no.
func (n *names) eachSource(f func(source string, claim func(*claims)) bool) {
	if !f("the agent's configuration", func(c *claims) { c.fixed(n.controllers(), n.self) }) {
		return
	}
	for _, node := range n.nodes {
		if !f("node "+node.Name, func(c *claims) { c.node(node) }) {
			return
		}
	}
	for _, s := range n.services {
		if !f("service "+s.doc.Key(), func(c *claims) { c.serviceClaims(s) }) {
			return
		}
	}
	for _, r := range n.records {
		if !f("record "+r.Name+" ("+string(r.Type)+")", func(c *claims) { c.record(r) }) {
			return
		}
	}
	for id, t := range n.tasks {
		if !f("task "+id, func(c *claims) { c.task(t.app, t.task) }) {
			return
		}
	}
}
