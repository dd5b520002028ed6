package scheduler_test

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/controller/scheduler"
)

// fleet is 5,000 nodes in 75 racks and 2 zones, and apps of so many instances
// that there are 10,000 tasks.
func fleet(instances int, change ...func(*api.App)) *scheduler.State {
	s := &scheduler.State{Nodes: nodes(5000, 75), Seed: 1}
	for i := range 10000 / instances {
		s.Targets = append(s.Targets, target(newApp(fmt.Sprintf("/apps/a%d", i), instances, append(change, func(a *api.App) { a.CPUs, a.Mem = 0.5, 256 })...)))
	}
	return s
}

// cpu is what the process has used: on a busy machine it says more than the
// clock.
func cpu() time.Duration {
	var r unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

func BenchmarkPlace(b *testing.B) {
	for name, change := range map[string][]func(*api.App){
		"plain":       nil,
		"constraints": {constrain("disk", "LIKE", "ss?d"), constrain("hostname", "UNIQUE"), constrain("@rack", "GROUP_BY")},
		"spread":      {func(a *api.App) { a.Spread = []string{"zone", "rack"} }},
	} {
		for _, instances := range []int{1, 10, 1000} {
			b.Run(fmt.Sprintf("%s/apps of %d", name, instances), func(b *testing.B) {
				s := fleet(instances, change...)
				b.ReportAllocs()
				placed, began := 0, cpu()
				for b.Loop() {
					placed += len(scheduler.Place(s, epoch).Launch)
				}
				b.ReportMetric(float64(placed)/b.Elapsed().Seconds(), "placements/s")
				b.ReportMetric(float64(placed)/(cpu()-began).Seconds(), "placements/cpu-s")
			})
		}
	}
}

func BenchmarkOneOfTenThousandApps(b *testing.B) {
	s := fleet(1, constrain("hostname", "UNIQUE"), constrain("@rack", "GROUP_BY"))
	t := scheduler.NewTable(s)
	t.Plan(epoch)
	a := s.Targets[5000].App
	b.ResetTimer()
	for n := 0; b.Loop(); n++ {
		a.Instances = api.Instances(1 + n%20)
		t.SetTargets(a.ID, []scheduler.Target{target(a)})
		t.Plan(epoch)
	}
}
