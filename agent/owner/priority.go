package owner

import (
	"fmt"
	"slices"
)

// PriorityOf is the priority of a node among the nodes of a group: the first
// in order has the highest. Nodes that order leaves out come after it, sorted
// by name, so that every node of the fleet reckons alike. It fails when the
// name is not among the nodes.
func PriorityOf(name string, order, nodes []string) (uint8, error) {
	if !slices.Contains(nodes, name) {
		return 0, fmt.Errorf("find priority of node %s: it is not one of the group's nodes", name)
	}
	rank := 0
	for _, n := range order {
		if n == name {
			return atLeastOne(rank), nil
		}
		rank++
	}
	for _, n := range slices.Compact(slices.Sorted(slices.Values(nodes))) {
		if n == name {
			break
		}
		if !slices.Contains(order, n) {
			rank++
		}
	}
	return atLeastOne(rank), nil
}

// atLeastOne is the priority of a rank. From the 254th on all have the lowest,
// and their addresses decide.
func atLeastOne(rank int) uint8 { return uint8(max(MaxPriority-rank, 1)) }
