package nft

import (
	"context"

	"github.com/weirproject/weir/dataplane/internal/verdict"
)

// Counter is what a rule has matched: packets that open a flow, since those
// that follow are passed before.
type Counter = verdict.Counter

// Drop is a packet that opens a flow and that a rule has dropped, or accepted
// if it is one that logs.
type Drop = verdict.Drop

// prefixBytes is what the kernel takes for a prefix, with a last 0.
const prefixBytes = 127

// Drops hears what the rules drop, and accept and log, from now on until the
// context ends; then the channel is closed. At most 10 packets a second of each
// rule are reported. One listener for each network namespace can be there.
func (f *Filter) Drops(ctx context.Context) (<-chan Drop, error) {
	return verdict.Listen(ctx, f.netns, f.log)
}
