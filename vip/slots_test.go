package vip

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
)

// backendsOf makes one backend that is up for each weight.
func backendsOf(weights ...int) []dataplane.Backend {
	all := make([]dataplane.Backend, len(weights))
	for i, w := range weights {
		address := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
		all[i] = dataplane.Backend{Address: netip.AddrPortFrom(address, 8080), Weight: w, State: api.Up}
	}
	return all
}

func equalWeights(n int) []dataplane.Backend {
	return backendsOf(slices.Repeat([]int{1}, n)...)
}

func counts(slots []uint32, backends int) []int {
	n := make([]int, backends)
	for _, s := range slots {
		n[s]++
	}
	return n
}

// misplaced is the part of all connections that goes to another backend than
// the weights ask for.
func misplaced(slots []uint32, backends []dataplane.Backend) float64 {
	total := 0
	for _, b := range backends {
		total += b.Weight
	}
	sum := 0.0
	for i, n := range counts(slots, len(backends)) {
		sum += math.Abs(float64(n)/float64(len(slots)) - float64(backends[i].Weight)/float64(total))
	}
	return sum / 2
}

func TestSharesAreExactWhereTheyFit(t *testing.T) {
	tests := []struct{ weights, want []int }{
		{[]int{1, 1, 1}, []int{1, 1, 1}},
		{[]int{90, 10}, []int{9, 1}},
		{[]int{1000, 1}, []int{1000, 1}},
		{[]int{1000, 500, 0}, []int{2, 1, 0}},
		{[]int{7, 0}, []int{1, 0}},
	}
	for _, test := range tests {
		if got := counts(shares(backendsOf(test.weights...)), len(test.weights)); !slices.Equal(got, test.want) {
			t.Errorf("weights %v: got %v slots, want %v", test.weights, got, test.want)
		}
	}
	for _, weights := range [][]int{{}, {0}, {0, 0}} {
		if got := shares(backendsOf(weights...)); got != nil {
			t.Errorf("weights %v: got slots %v, want none", weights, got)
		}
	}
}

func TestOnlyBackendsThatAreUpHaveSlots(t *testing.T) {
	backends := backendsOf(1, 1, 1)
	backends[0].State, backends[2].State = api.Down, api.Draining
	for name, slots := range map[string][]uint32{"random": shares(backends), "maglev": maglev(backends)} {
		if got := counts(slots, 3); got[0] != 0 || got[1] == 0 || got[2] != 0 {
			t.Errorf("%s: got %v slots", name, got)
		}
	}
	backends[1].State = api.Down
	if shares(backends) != nil || maglev(backends) != nil {
		t.Error("slots without a backend that is up")
	}
}

func TestSharesThatAreScaledDownKeepTheStatedError(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	sets := [][]int{
		append(slices.Repeat([]int{1000}, 500), slices.Repeat([]int{1}, 500)...),
		append(slices.Repeat([]int{1000}, 3), slices.Repeat([]int{1}, 3000)...),
		append(slices.Repeat([]int{997}, 9), 1),
		{1000, 999, 998, 997, 996, 1},
	}
	for range 50 {
		weights := make([]int, 1+random.IntN(300))
		for i := range weights {
			weights[i] = random.IntN(api.MaxWeight + 1)
		}
		sets = append(sets, weights)
	}
	for _, weights := range sets {
		backends := backendsOf(weights...)
		slots := shares(backends)
		if limit := max(minSlotCap, slotsPerBackend*len(weights)) + len(weights); len(slots) > limit {
			t.Errorf("%d backends have %d slots, want at most %d", len(weights), len(slots), limit)
		}
		if got := misplaced(slots, backends); got > 1.0/slotsPerBackend || len(weights) <= 100 && got > 0.025 {
			t.Errorf("%d backends: %.4f of the connections are misplaced", len(weights), got)
		}
		for i, n := range counts(slots, len(weights)) {
			if (n > 0) != (weights[i] > 0) {
				t.Errorf("weight %d has %d slots", weights[i], n)
			}
		}
	}
}

func TestMaglevSharesFollowTheWeights(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	sets := [][]int{{90, 10}, {1, 1, 1}, {1000, 1}, {3, 2, 1, 0}, {1000, 1000, 1000, 1}}
	for range 30 {
		weights := make([]int, 2+random.IntN(40))
		for i := range weights {
			weights[i] = random.IntN(100)
		}
		sets = append(sets, weights)
	}
	for _, weights := range sets {
		backends := backendsOf(weights...)
		slots := maglev(backends)
		if got := misplaced(slots, backends); got > 0.03 {
			t.Errorf("weights %v: %.4f of the clients are misplaced, want at most 0.03", weights, got)
		}
		for i, n := range counts(slots, len(weights)) {
			if (n > 0) != (weights[i] > 0) {
				t.Errorf("weights %v: weight %d has %d slots", weights, weights[i], n)
			}
		}
	}
}

func TestMaglevIsBalancedWithEqualWeights(t *testing.T) {
	for _, n := range []int{1, 2, 3, 4, 10, 51, 200} {
		slots := maglev(equalWeights(n))
		c := counts(slots, n)
		if low, high := slices.Min(c), slices.Max(c); high-low > 1 {
			t.Errorf("%d backends: from %d to %d slots, want a difference of at most 1", n, low, high)
		}
	}
}

func TestMaglevSizesArePrimeAndHoldEveryBackend(t *testing.T) {
	for _, size := range maglevSizes {
		for d := 2; d*d <= size; d++ {
			if size%d == 0 {
				t.Errorf("%d is divisible by %d", size, d)
			}
		}
	}
	if n := 3000; slices.Min(counts(maglev(equalWeights(n)), n)) == 0 {
		t.Errorf("a backend of %d has no slot", n)
	}
}

// What one backend takes along is 1/n of the clients; Maglev moves few others.
func TestMaglevMovesFewClientsWhenABackendGoesDown(t *testing.T) {
	for _, n := range []int{3, 4, 10, 52, 200} {
		backends := equalWeights(n)
		before := maglev(backends)
		for _, gone := range []int{0, n / 2, n - 1} {
			backends[gone].State = api.Down
			after := maglev(backends)
			backends[gone].State = api.Up
			if len(after) != len(before) {
				t.Fatalf("%d backends: the table changed its size from %d to %d", n, len(before), len(after))
			}
			moved := 0
			for i := range after {
				if before[i] != after[i] && before[i] != uint32(gone) {
					moved++
				}
			}
			if share := float64(moved) / float64(len(after)); share > 0.05 {
				t.Errorf("%d backends, %d down: %.3f of the clients of others moved, want at most 0.05", n, gone, share)
			}
		}
	}
}

func BenchmarkMaglev(b *testing.B) {
	for _, n := range []int{10, 200} {
		backends := equalWeights(n)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				maglev(backends)
			}
		})
	}
}
