package health

import (
	"context"
	"net/netip"

	"github.com/weirproject/weir/api"
)

// Once makes one check of a backend, from the goroutine that calls it and thus
// in its thread's network namespace; nil means that it passed. The check has one
// kind; its timeout counts, or its default.
func Once(ctx context.Context, check api.HealthCheck, backend netip.AddrPort) error {
	check = check.WithDefaults()
	probe := (&prober{}).probe(Target{Backend: backend, Check: check})
	return within(ctx, check.Timeout.Std(), probe)
}
