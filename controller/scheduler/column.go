package scheduler

import "strings"

// hostname is the field of a node's name; Marathon takes it without the @ too.
const hostname = "@hostname"

// separator stands between the fields of a combined column, and their values.
const separator = "\x00"

// column is what every node has in one field, or in several, as small numbers.
// Number 0 is for nodes that lack the field.
type column struct {
	field   string
	numbers map[string]int32
	values  []string
	of      []int32 // by slot
	// A combined column has its parts, and for every number those of the parts.
	parts    []*column
	numbered [][]int32
}

// column is that of a field, or of several with separators in between.
func (t *nodes) column(field string) *column {
	c := t.columns[field]
	if c != nil {
		return c
	}
	c = &column{field: field, numbers: map[string]int32{"": 0}, values: []string{""}}
	if fields := strings.Split(field, separator); len(fields) > 1 {
		for _, f := range fields {
			c.parts = append(c.parts, t.column(f))
		}
		c.numbered = [][]int32{make([]int32, len(fields))}
	}
	t.columns[field] = c
	for slot := range t.facts {
		c.set(int32(slot), &t.facts[slot])
	}
	return c
}

func (c *column) set(slot int32, n *Node) {
	for int(slot) >= len(c.of) {
		c.of = append(c.of, 0)
	}
	if c.parts == nil {
		c.of[slot] = c.number(fieldOf(n, c.field))
		return
	}
	numbers, values := make([]int32, len(c.parts)), make([]string, len(c.parts))
	for i, part := range c.parts {
		values[i] = fieldOf(n, part.field)
		numbers[i] = part.number(values[i])
	}
	c.of[slot] = c.number(strings.Join(values, separator))
	if int(c.of[slot]) == len(c.numbered) {
		c.numbered = append(c.numbered, numbers)
	}
}

// number is that of a value, which gets one if it has none.
func (c *column) number(value string) int32 {
	number, known := c.numbers[value]
	if !known {
		number = int32(len(c.values))
		c.numbers[value] = number
		c.values = append(c.values, value)
	}
	return number
}

// fieldOf is what a node has in a field; empty for nothing.
func fieldOf(n *Node, field string) string {
	switch field {
	case hostname, "hostname":
		return n.Name
	case "@region":
		return n.Domain.Region
	case "@zone":
		return n.Domain.Zone
	case "@rack":
		return n.Domain.Rack
	}
	return n.Attributes[field]
}
