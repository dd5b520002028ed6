package vip

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func allFull(n int) []int { return slices.Repeat([]int{full}, n) }

func tally(slots []uint32, members int) []int {
	n := make([]int, members)
	for _, s := range slots {
		n[s]++
	}
	return n
}

func TestAMemberThatGoesDownMovesItsSlotsAloneAndGetsThemBack(t *testing.T) {
	random := rand.New(rand.NewPCG(8, 9))
	for _, n := range []int{2, 3, 10, 100} {
		weights := make([]int, n)
		for i := range weights {
			weights[i] = 1 + random.IntN(9)
		}
		base := NewBase(nil, membersOf(weights...), minSlots)
		levels := allFull(n)
		seen := map[string][]uint32{}
		for range 60 {
			before := base.fill(levels)
			i := random.IntN(n)
			was := levels[i]
			levels[i] = full - was
			after := base.fill(levels)
			if after == nil || before == nil {
				if slices.Max(levels) > 0 && after == nil {
					t.Fatal("no slots though somebody is up")
				}
				continue
			}
			for slot := range after {
				if before[slot] != after[slot] && before[slot] != uint32(i) && after[slot] != uint32(i) {
					t.Fatalf("%d members: slot %d moved from %d to %d when %d changed", n, slot, before[slot], after[slot], i)
				}
				if levels[after[slot]] == 0 {
					t.Fatalf("slot %d is with %d, which is down", slot, after[slot])
				}
			}
			key := string(levelBytes(levels))
			if seen[key] != nil && !slices.Equal(seen[key], after) {
				t.Fatalf("%d members: the same health made two tables", n)
			}
			seen[key] = after
		}
		if got := base.fill(allFull(n)); !slices.Equal(got, base.owners) {
			t.Errorf("%d members: not what it was once all are back", n)
		}
	}
}

func levelBytes(levels []int) []byte {
	var b []byte
	for _, l := range levels {
		b = append(b, byte(l))
	}
	return b
}

func TestWhatIsDownIsSharedByTheWeights(t *testing.T) {
	weights := slices.Repeat([]int{1, 2, 3, 4}, 5)
	base := NewBase(nil, membersOf(weights...), 65536)
	levels := allFull(20)
	for i := range 10 {
		levels[i] = 0
	}
	up := 0
	for _, w := range weights[10:] {
		up += w
	}
	for i, n := range tally(base.fill(levels), 20) {
		if i < 10 {
			continue
		}
		want := float64(65536*weights[i]) / float64(up)
		if math.Abs(float64(n)/want-1) > 0.1 {
			t.Errorf("member %d of weight %d has %d slots, want about %.0f", i, weights[i], n, want)
		}
	}
}

func TestOneOfThousandThatIsUpHasAllSlots(t *testing.T) {
	base := NewBase(nil, equalWeights(1000), minSlots)
	levels := make([]int, 1000)
	levels[700] = full
	if n := tally(base.fill(levels), 1000); n[700] != base.Size() {
		t.Errorf("it has %d of %d slots", n[700], base.Size())
	}
	levels[3] = full
	if n := tally(base.fill(levels), 1000); n[3]+n[700] != base.Size() || min(n[3], n[700]) < base.Size()/3 {
		t.Errorf("two that are up have %d and %d of %d slots", n[3], n[700], base.Size())
	}
	light := membersOf(append(slices.Repeat([]int{1000}, 50), slices.Repeat([]int{1}, 50)...)...)
	levels = append(make([]int, 50), allFull(50)...)
	if n := tally(NewBase(nil, light, minSlots).fill(levels), 100); slices.Max(n[:50]) > 0 || slices.Min(n[50:]) == 0 {
		t.Errorf("light members alone: got %v", n)
	}
}

func TestWithNobodyUpThereAreNoSlots(t *testing.T) {
	base := NewBase(nil, membersOf(1, 1, 0), minSlots)
	if base.fill([]int{0, 0, full}) != nil || NewBase(nil, membersOf(0), minSlots).fill([]int{full}) != nil {
		t.Error("slots without a member that can serve")
	}
}

func TestASlowStartTakesSlotsStepByStep(t *testing.T) {
	base := NewBase(nil, equalWeights(10), 16384)
	levels := allFull(10)
	own := tally(base.owners, 10)[4]
	var before []uint32
	for level := 1; level <= full; level++ {
		levels[4] = level
		slots := base.fill(levels)
		if n, want := tally(slots, 10)[4], own*level/full; n < want*4/5 || n > want*6/5+1 {
			t.Errorf("level %d: it has %d slots, want about %d", level, n, want)
		}
		for slot := range slots {
			if before != nil && before[slot] != slots[slot] && slots[slot] != 4 {
				t.Fatalf("level %d: slot %d moved from %d to %d", level, slot, before[slot], slots[slot])
			}
		}
		before = slots
	}
	many := NewBase(nil, equalWeights(3000), minSlots) // 21 slots each
	levels = allFull(3000)
	for i := range levels {
		levels[i] = 1 + i%full
	}
	if least := slices.Min(tally(many.fill(levels), 3000)); least < 1 {
		t.Error("a member that starts slowly has no slot")
	}
}

// Another member moves slots that were refilled only to itself.
func TestAnUpdateWhileAMemberIsDownMovesLittle(t *testing.T) {
	base := NewBase(nil, equalWeights(10), 4096)
	levels := allFull(10)
	levels[2] = 0
	before := base.fill(levels)
	grown := NewBase(base, equalWeights(11), 4096)
	after := grown.fill(append(levels, full))
	for slot := range after {
		if before[slot] != after[slot] && after[slot] != 10 {
			t.Fatalf("slot %d moved from %d to %d", slot, before[slot], after[slot])
		}
	}
}
