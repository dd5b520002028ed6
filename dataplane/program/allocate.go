package program

import (
	"fmt"

	"github.com/weirproject/weir/dataplane/internal/room"
)

// What follows makes the maps larger when they are full.

func (b *Balancer) takeService(p *pass) (uint32, error) {
	return b.takeID(p, b.ids, "services", Sizes{Services: b.ids.Limit() + 1})
}

func (b *Balancer) takeBackend(p *pass) (uint32, error) {
	return b.takeID(p, b.backends, "backends", Sizes{Backends: b.backends.Limit() + 1})
}

func (b *Balancer) takeID(p *pass, ids *room.IDs, what string, atLeast Sizes) (uint32, error) {
	id, ok := ids.Take()
	if !ok {
		if err := b.grow(p, what, atLeast); err != nil {
			return 0, err
		}
		id, _ = ids.Take()
	}
	return id, nil
}

func (b *Balancer) takeRun(p *pass, count uint32) (room.Run, error) {
	r, ok := b.slots.Take(count)
	if !ok {
		if err := b.grow(p, "slots", Sizes{Slots: b.slots.Size() + count}); err != nil {
			return r, fmt.Errorf("%d slots in a row are needed: %w", count, err)
		}
		r, _ = b.slots.Take(count)
	}
	return r, nil
}
