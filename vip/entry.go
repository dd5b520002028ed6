package vip

import (
	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
)

// news tells which of an entry's tables have changed.
type news struct{ table, edge bool }

// build makes the entry's tables, and keeps those that come out the same.
func (e *entry) build(doc *api.Service, f *fleet, o *Options) (n news) {
	b := builder{ref: e.ref, doc: doc, fleet: f, options: o, old: e.bases, bases: map[string]*Base{}}
	var skipped []Skipped
	for family, frontends := range e.granted {
		var table *dataplane.Service
		var memory *edgeMemory
		var local *dataplane.EdgeService
		if len(frontends) > 0 {
			var all []server
			table, all = b.family(family, frontends)
			if doc.Edge != nil {
				memory, local, skipped = b.edges(family, frontends, all, e.edges[family], skipped)
			}
		}
		if !sameTable(table, e.tables[family]) {
			e.tables[family], n.table = table, true
		}
		if made, before := memory.service(), e.edges[family].service(); sameEdge(made, before) {
			memory.keep(before)
		} else {
			n.edge = true
		}
		if !sameEdge(local, e.local[family]) {
			e.local[family], n.edge = local, true
		}
		e.edges[family] = memory
	}
	n.edge = n.edge || len(skipped) > 0 || len(e.edgeSkipped) > 0
	e.edgeSkipped, e.bases, e.next = skipped, b.bases, b.next
	return n
}

// hasEdge tells whether it has tables for edge nodes or their backends' nodes.
func (e *entry) hasEdge() bool {
	for family := range e.edges {
		if e.edges[family] != nil || e.local[family] != nil {
			return true
		}
	}
	return len(e.edgeSkipped) > 0
}
