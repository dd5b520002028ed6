package scheduler

import (
	"math/bits"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/weirproject/weir/api"
)

// constraint is one of an app's, as [field, operator, value] says. What depends
// on the app's other instances is counted; the rest is a property of the node.
type constraint struct {
	field, operator, value string
	number                 int // of MAX_PER and GROUP_BY
}

func (c constraint) String() string {
	text := c.field + " " + c.operator
	if c.value != "" {
		text += " " + c.value
	}
	return text
}

func constraintsOf(a *api.App) []constraint {
	all := make([]constraint, 0, len(a.Constraints))
	for _, words := range a.Constraints {
		if len(words) < 2 {
			continue // Validate refuses it
		}
		c := constraint{field: words[0], operator: words[1]}
		if c.field == "hostname" {
			c.field = hostname
		}
		if len(words) > 2 {
			c.value = words[2]
			c.number, _ = strconv.Atoi(c.value)
		}
		all = append(all, c)
	}
	return all
}

// counted tells whether nodes accept or decline by what runs already.
func (c constraint) counted() bool {
	switch c.operator {
	case "UNIQUE", "GROUP_BY", "MAX_PER":
		return true
	case "CLUSTER":
		return c.value == ""
	}
	return false
}

// perHost is how many instances a node may have by this constraint; 0 when it
// says nothing of the kind.
func (c constraint) perHost() int {
	switch {
	case c.field != hostname:
		return 0
	case c.operator == "UNIQUE":
		return 1
	case c.operator == "MAX_PER":
		return c.number
	}
	return 0
}

// accepts tells, for every value of a column, whether nodes with it are
// accepted. Number 0, nothing, is accepted by UNLIKE only.
func (c constraint) accepts(col *column) []bool {
	ok := make([]bool, len(col.values))
	var pattern *regexp.Regexp
	if c.operator == "LIKE" || c.operator == "UNLIKE" {
		pattern, _ = regexp.Compile("^(?:" + c.value + ")$") // Validate refuses wrong ones; nil accepts nothing
	}
	for i, v := range col.values {
		switch {
		case i == 0:
			ok[i] = c.operator == "UNLIKE" && pattern != nil
		case c.operator == "LIKE":
			ok[i] = pattern != nil && pattern.MatchString(v)
		case c.operator == "UNLIKE":
			ok[i] = pattern != nil && !pattern.MatchString(v)
		case c.operator == "IS" || c.operator == "CLUSTER" && c.value != "":
			ok[i] = v == c.value || sameNumber(v, c.value)
		default:
			ok[i] = true
		}
	}
	return ok
}

func sameNumber(a, b string) bool {
	x, err := strconv.ParseFloat(a, 64)
	if err != nil {
		return false
	}
	y, err := strconv.ParseFloat(b, 64)
	return err == nil && x == y
}

// mask has the nodes that an app may run on for ever, whatever runs there.
type mask struct {
	epoch int
	bits  []uint64
}

// mask is that of an app's roles and constraints; apps with the same ones share
// it.
func (t *nodes) mask(a *api.App, constraints []constraint) *mask {
	var key strings.Builder
	for _, r := range a.AcceptedResourceRoles {
		key.WriteString(r + separator)
	}
	for _, c := range constraints {
		key.WriteString(separator + c.field + separator + c.operator + separator + c.value)
	}
	m := t.masks[key.String()]
	if m != nil && m.epoch == t.epoch {
		return m
	}
	m = &mask{epoch: t.epoch, bits: make([]uint64, (len(t.facts)+63)/64)}
	for slot := range t.facts {
		if t.state[slot] != gone && acceptsRole(a.AcceptedResourceRoles, t.facts[slot].EffectiveRole()) {
			m.bits[slot/64] |= 1 << (slot % 64)
		}
	}
	for _, c := range constraints {
		col := t.column(c.field)
		ok := c.accepts(col)
		m.each(func(slot int32) {
			if !ok[col.of[slot]] {
				m.bits[slot/64] &^= 1 << (slot % 64)
			}
		})
	}
	if len(t.masks) > 4096 {
		clear(t.masks) // apps that are gone leave theirs
	}
	t.masks[key.String()] = m
	return m
}

func (m *mask) each(f func(slot int32)) {
	for i, word := range m.bits {
		for ; word != 0; word &= word - 1 {
			f(int32(i*64 + bits.TrailingZeros64(word)))
		}
	}
}

func (m *mask) has(slot int32) bool { return m.bits[slot/64]&(1<<(slot%64)) != 0 }

// acceptsRole tells whether an app with these accepted roles may run on a node
// of this one. "*", and no word at all, is for agents; public nodes take only who
// asks for them, also by their old name.
func acceptsRole(accepted []string, role string) bool {
	if len(accepted) == 0 {
		return role == api.RoleAgent
	}
	return slices.ContainsFunc(accepted, func(want string) bool {
		return want == role || want == "*" && role == api.RoleAgent || want == "slave_public" && role == api.RolePublic
	})
}
