package nft

import (
	"context"
	"fmt"

	"github.com/google/nftables"
)

// Counters gives the counters by name of rule, summed over the hooks and both
// address families, with those of dataplane.DefaultDeny, Invalid and Spoofed.
// It is empty without a table.
func (f *Filter) Counters() (map[string]Counter, error) {
	conn, err := f.dial(context.Background())
	if err != nil {
		return nil, fmt.Errorf("read nftables counters: %w", err)
	}
	defer conn.CloseLasting()
	counters := map[string]Counter{}
	table, err := findTable(conn.Conn)
	if err != nil || table == nil {
		return counters, err
	}
	found, err := conn.GetObjects(table)
	if err != nil {
		return nil, fmt.Errorf("read nftables counters: %w", inWords(err))
	}
	for _, o := range found {
		if c, ok := o.(*nftables.CounterObj); ok {
			counters[c.Name] = Counter{Packets: c.Packets, Bytes: c.Bytes}
		}
	}
	return counters, nil
}
