package program

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/testenv"
)

// benchBalancer makes one at a cgroup without processes.
func benchBalancer(b *testing.B, verify time.Duration) *Balancer {
	b.Helper()
	root, err := testenv.CgroupRoot()
	if err != nil {
		b.Skip(err)
	}
	cgroup, err := os.MkdirTemp(root, "weir-program-bench-")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.Remove(cgroup) })
	dir := b.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	balancer, err := New(Options{PinDir: filepath.Join(dir, "weir"), Cgroup: cgroup, VerifyEvery: verify})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { balancer.Close() })
	return balancer
}

func mustSet(b *testing.B, balancer *Balancer, services []*dataplane.Service) {
	b.Helper()
	if _, err := balancer.Set(context.Background(), table(services...)); err != nil {
		b.Fatal(err)
	}
}

func benchmarkLoad(b *testing.B, services []*dataplane.Service) {
	for b.Loop() {
		b.StopTimer()
		balancer := benchBalancer(b, time.Hour)
		b.StartTimer()
		mustSet(b, balancer, services)
		b.StopTimer()
		bytes := kernelMemory(b, balancer)
		b.ReportMetric(float64(bytes)/(1<<20), "MiB-kernel")
		b.ReportMetric(float64(bytes)/float64(len(services)), "bytes/service")
		balancer.Close()
		b.StartTimer()
	}
}

func benchmarkChange(b *testing.B, services []*dataplane.Service) {
	balancer := benchBalancer(b, time.Hour)
	mustSet(b, balancer, services)
	draining := only(services[0], api.Draining, 1, 2, 3, 4)
	next := append([]*dataplane.Service(nil), services...)
	for i := 0; b.Loop(); i++ {
		if next[0] = services[0]; i%2 == 0 {
			next[0] = draining
		}
		mustSet(b, balancer, next)
	}
}

func benchmarkVerify(b *testing.B, services []*dataplane.Service) {
	balancer := benchBalancer(b, 0)
	mustSet(b, balancer, services)
	for b.Loop() {
		mustSet(b, balancer, services)
	}
}

// kernelMemory sums what the kernel says that the maps take.
func kernelMemory(b *testing.B, balancer *Balancer) (sum uint64) {
	b.Helper()
	for _, m := range balancer.maps {
		f, err := os.Open(fmt.Sprintf("/proc/self/fdinfo/%d", m.FD()))
		if err != nil {
			b.Fatal(err)
		}
		text, err := io.ReadAll(f)
		f.Close()
		if err != nil {
			b.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if value, found := strings.CutPrefix(line, "memlock:"); found {
				n, err := strconv.ParseUint(strings.TrimSpace(value), 10, 64)
				if err != nil {
					b.Fatal(err)
				}
				sum += n
			}
		}
	}
	return sum
}
