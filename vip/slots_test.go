package vip

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/weirproject/weir/api"
)

func partsOf(weights []int) []uint64 {
	p := make([]uint64, len(weights))
	for i, w := range weights {
		p[i] = uint64(w)
	}
	return p
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
func misplaced(slots []uint32, weights []int) float64 {
	total := 0
	for _, w := range weights {
		total += w
	}
	sum := 0.0
	for i, n := range counts(slots, len(weights)) {
		sum += math.Abs(float64(n)/float64(len(slots)) - float64(weights[i])/float64(total))
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
		if got := counts(shares(partsOf(test.weights)), len(test.weights)); !slices.Equal(got, test.want) {
			t.Errorf("weights %v: got %v slots, want %v", test.weights, got, test.want)
		}
	}
	for _, weights := range [][]int{{}, {0}, {0, 0}} {
		if got := shares(partsOf(weights)); got != nil {
			t.Errorf("weights %v: got slots %v, want none", weights, got)
		}
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
		slots := shares(partsOf(weights))
		if limit := max(minSlotCap, slotsPerBackend*len(weights)) + len(weights); len(slots) > limit {
			t.Errorf("%d backends have %d slots, want at most %d", len(weights), len(slots), limit)
		}
		if got := misplaced(slots, weights); got > 1.0/slotsPerBackend || len(weights) <= 100 && got > 0.025 {
			t.Errorf("%d backends: %.4f of the connections are misplaced", len(weights), got)
		}
		for i, n := range counts(slots, len(weights)) {
			if (n > 0) != (weights[i] > 0) {
				t.Errorf("weight %d has %d slots", weights[i], n)
			}
		}
	}
}
