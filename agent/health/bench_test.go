package health

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/weirproject/weir/api"
)

// tenThousand are targets of a hundred services.
func tenThousand() []Target {
	var all []Target
	for i := range 100 {
		all = append(all, many(fmt.Sprintf("s%d.shop", i), 100)...)
	}
	return all
}

func BenchmarkSet10000(b *testing.B) {
	c, all := New(Options{}), tenThousand()
	b.ReportAllocs()
	for b.Loop() {
		c.Set(all)
	}
}

func BenchmarkState10000(b *testing.B) {
	c, all := New(Options{}), tenThousand()
	c.Set(all)
	b.ReportAllocs()
	for b.Loop() {
		for _, k := range all {
			if state, _ := c.State(k.Service, k.Protocol, k.Backend); state != api.Down {
				b.Fatal(state)
			}
		}
	}
}

// BenchmarkCheck is what a check costs beside its probe.
func BenchmarkCheck(b *testing.B) {
	c, all := New(Options{}), tenThousand()
	c.probe = func(Target) probeFunc { return func(context.Context) error { return nil } }
	ctx, cancel := context.WithCancel(b.Context())
	c.ctx = ctx
	for i := range all {
		all[i].Check.Interval = api.Duration(time.Hour)
	}
	c.Set(all)
	var checks []*check
	for _, k := range c.checks {
		checks = append(checks, k)
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		c.due(checks[i%len(checks)])
		i++
	}
	c.running.Wait()
	cancel()
}
