package vip

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/weirproject/weir/api"
)

func memberAddress(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 8080)
}

// membersOf makes one member for each weight.
func membersOf(weights ...int) []Member {
	all := make([]Member, len(weights))
	for i, w := range weights {
		all[i] = Member{memberAddress(i), w}
	}
	return all
}

func equalWeights(n int) []Member { return membersOf(slices.Repeat([]int{1}, n)...) }

// slotsOf counts the slots of each member.
func slotsOf(b *Base) []int { return tally(b.owners, len(b.members)) }

// share is the member's exact share of the slots.
func share(b *Base, i int) float64 {
	return float64(len(b.owners)) * float64(b.members[i].Weight) / float64(totalWeight(b.members))
}

// unfairness is the most slots that anybody has above its share, and how many
// slots are with another member than the weights ask for.
func unfairness(b *Base) (worst, misplaced float64) {
	for i, n := range slotsOf(b) {
		over := float64(n) - share(b, i)
		worst = max(worst, over)
		misplaced += max(over, 0)
	}
	return worst, misplaced
}

// checkUpdate fails when a slot moved from one table to the other that need not.
func checkUpdate(t *testing.T, before, after *Base) {
	t.Helper()
	if len(before.owners) == 0 || len(after.owners) == 0 {
		return
	}
	before = before.grow(len(after.owners), 0)
	now, was := make([]int, len(before.members)), slices.Repeat([]int{-1}, len(after.members))
	anybody := false
	for i, m := range before.members {
		j, found := slices.BinarySearchFunc(after.members, m, byAddress)
		if now[i] = -1; found {
			was[j] = i
			if after.members[j].Weight > 0 {
				now[i] = j
				anybody = anybody || m.Weight > 0
			}
		}
	}
	if !anybody {
		return // made anew
	}
	lighter := func(i, j int) bool {
		return after.members[j].Weight < before.members[i].Weight && share(after, j) < share(before, i)
	}
	claims := func(j int) bool {
		i := was[j]
		return i < 0 || before.members[i].Weight == 0 || after.members[j].Weight > before.members[i].Weight && share(after, j) > share(before, i)
	}
	count := slotsOf(after)
	for slot, owner := range after.owners {
		i, j := int(before.owners[slot]), int(owner)
		if now[i] < 0 || now[i] == j {
			continue // its owner is gone, or has it still
		}
		switch {
		case claims(j):
			// It takes from others to get its share, rounded up, and no more.
			if float64(count[j]) >= share(after, j)+1 {
				t.Fatalf("%s took a slot and has %d, with a share of %.2f", after.members[j].Address, count[j], share(after, j))
			}
		case lighter(i, now[i]):
			if float64(count[now[i]]) < share(after, now[i]) {
				t.Fatalf("%s gave a slot and has %d, with a share of %.2f", before.members[i].Address, count[now[i]], share(after, now[i]))
			}
		default:
			t.Fatalf("slot %d moved from %v to %v, with no reason", slot, before.members[i], after.members[j])
		}
	}
}

// The figures of a Maglev table that is made anew: 0.05 to 5.6% of clients move
// who need not, at 3 to 100 members.
func TestAMemberThatGoesOrComesMovesItsOwnSlotsAlone(t *testing.T) {
	for _, n := range []int{3, 10, 100, 1000} {
		for _, least := range []int{256, 1024, 4096, 16384, 65536} {
			base := NewBase(nil, equalWeights(n), least)
			if worst, misplaced := unfairness(base); worst >= 1 || misplaced > float64(n)/4 {
				t.Errorf("%d members, %d slots from scratch: %.2f slots above a share, %.1f misplaced", n, base.Size(), worst, misplaced)
			}
			for _, gone := range []int{0, n / 2, n - 1} {
				rest := slices.Delete(equalWeights(n), gone, gone+1)
				without := NewBase(base, rest, least)
				moved := movedSlots(base, without)
				if own := slotsOf(base)[gone]; moved != own || without.Size() != base.Size() {
					t.Errorf("%d members, %d slots: %d moved when one with %d went", n, base.Size(), moved, own)
				}
				again := NewBase(without, equalWeights(n), least)
				moved = movedSlots(without, again)
				if share := int(math.Ceil(float64(base.Size()) / float64(n))); moved != share || slotsOf(again)[gone] != share {
					t.Errorf("%d members, %d slots: %d moved when one came, want %d", n, base.Size(), moved, share)
				}
				checkUpdate(t, base, without)
				checkUpdate(t, without, again)
			}
		}
	}
}

func movedSlots(a, b *Base) int {
	n := 0
	for slot := range a.owners {
		if a.members[a.owners[slot]].Address != b.members[b.owners[slot]].Address {
			n++
		}
	}
	return n
}

func TestRandomUpdatesMoveNothingMoreThanTheyMust(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	most, mostMisplaced := 0.0, 0.0
	for range 15 {
		weights := make([]int, 1+random.IntN(150))
		heaviest := 1 + random.IntN(50)
		for i := range weights {
			weights[i] = random.IntN(heaviest + 1)
		}
		base := NewBase(nil, withoutZeros(weights), minSlots)
		for range 60 {
			for range 1 + random.IntN(3) {
				weights[random.IntN(len(weights))] = random.IntN(heaviest + 1)
			}
			next := NewBase(base, withoutZeros(weights), minSlots)
			checkUpdate(t, base, next)
			if again := NewBase(base, withoutZeros(weights), minSlots); !slices.Equal(again.owners, next.owners) {
				t.Fatal("the same update twice made two tables")
			}
			if n := float64(len(next.members)); n > 0 {
				worst, misplaced := unfairness(next)
				if worst > 1+math.Log(n) || misplaced > n {
					t.Fatalf("%.0f members, %d slots: %.2f above a share, %.1f misplaced", n, next.Size(), worst, misplaced)
				}
				most, mostMisplaced = max(most, worst), max(mostMisplaced, misplaced/n)
			}
			base = next
		}
	}
	t.Logf("the most above a share: %.2f slots; misplaced: %.2f slots for each member", most, mostMisplaced)
}

// withoutZeros leaves some members without weight out, and keeps others.
func withoutZeros(weights []int) []Member {
	return slices.DeleteFunc(membersOf(weights...), func(m Member) bool {
		return m.Weight == 0 && m.Address.Addr().As4()[3]%2 == 0
	})
}

// Light members that come one after the other take a slot each, and each time
// everybody else's share shrinks a little.
func TestManySmallUpdatesKeepTheTableFair(t *testing.T) {
	weights := slices.Repeat([]int{100}, 60)
	base := NewBase(nil, membersOf(weights...), 16384)
	for i := range 300 {
		if i%3 == 2 {
			weights[i%60] = 60 + i%80
		} else {
			weights = append(weights, 1)
		}
		next := NewBase(base, membersOf(weights...), 16384)
		checkUpdate(t, base, next)
		base = next
		worst, misplaced := unfairness(base)
		if n := float64(len(weights)); worst > 1+math.Log(n) || misplaced > n {
			t.Fatalf("step %d: %.2f above a share, %.1f misplaced of %d", i, worst, misplaced, base.Size())
		}
	}
}

func TestATableGrowsWithoutMovingAClient(t *testing.T) {
	base := NewBase(nil, equalWeights(3), minSlots)
	if base.Size() != 256 {
		t.Fatalf("got %d slots", base.Size())
	}
	grown := NewBase(base, equalWeights(3), edgeSlots)
	if grown.Size() != 1024 || grown.members[0] != base.members[0] {
		t.Fatalf("got %d slots", grown.Size())
	}
	for draw := uint64(0); draw < 1<<32; draw += 1<<20 + 7 {
		if a, b := base.owners[draw*256>>32], grown.owners[draw*1024>>32]; a != b {
			t.Fatalf("the client %d moved from %d to %d", draw, a, b)
		}
	}
	// Up to twice the members a table stays as it is.
	for n, want := range map[int]int{6: 256, 7: 1024, 26: 4096, 2000: 65536} {
		if got := NewBase(base, equalWeights(n), minSlots).Size(); got != want {
			t.Errorf("%d members: got %d slots, want %d", n, got, want)
		}
	}
	if NewBase(base, equalWeights(3), minSlots) != base {
		t.Error("the same members made another table")
	}
}

func TestSharesFollowTheWeights(t *testing.T) {
	sets := [][]int{{90, 10}, {1000, 1}, {3, 2, 1, 0}, {1000, 1000, 1000, 1}, {0}, {}, {0, 7},
		append(slices.Repeat([]int{1000}, 5), slices.Repeat([]int{1}, 500)...)}
	for _, weights := range sets {
		base := NewBase(nil, membersOf(weights...), minSlots)
		if total := totalWeight(base.members); (base.Size() > 0) != (total > 0) {
			t.Errorf("weights %v: got %d slots", weights, base.Size())
		}
		lifted := 0 // those who have one slot by grace
		for i := range weights {
			if s := share(base, i); s > 0 && s < 1 {
				lifted++
			}
		}
		for i, n := range slotsOf(base) {
			if off := math.Abs(float64(n) - share(base, i)); off > 1+float64(lifted) || (n > 0) != (weights[i] > 0) {
				t.Errorf("%d weights: the weight %d has %d slots, and a share of %.2f", len(weights), weights[i], n, share(base, i))
			}
		}
	}
	if base := NewBase(nil, equalWeights(65536), minSlots); slices.Min(slotsOf(base)) != 1 {
		t.Error("not everybody has a slot where there are just enough")
	}
}

func TestMembersMayComeInAnyOrderAndTwice(t *testing.T) {
	members := membersOf(3, 1, 2)
	want := NewBase(nil, members, minSlots)
	turned := append(slices.Clone(members), Member{members[0].Address, 9})
	slices.Reverse(turned[:3])
	if got := NewBase(nil, turned, minSlots); !slices.Equal(got.owners, want.owners) || !slices.Equal(got.Members(), members) {
		t.Error("the order of the members matters")
	}
}

func TestATableWithoutSurvivorsIsMadeAnew(t *testing.T) {
	base := NewBase(nil, membersOf(1, 1, 0, 0), minSlots)
	if other := NewBase(base, membersOf(0, 0, 1, 1), minSlots); slotsOf(other)[2] != slotsOf(other)[3] || other.Size() != base.Size() {
		t.Errorf("got %v", slotsOf(other))
	}
	none := NewBase(base, membersOf(0, 0), minSlots)
	if none.Size() != 0 || NewBase(none, membersOf(1, 1), minSlots).Size() != 256 {
		t.Error("a table without weights has slots, or does not get over it")
	}
}

func BenchmarkBase(b *testing.B) {
	for _, n := range []int{10, 100, 1000} {
		members := equalWeights(n)
		base := NewBase(nil, members, minSlots)
		b.Run(fmt.Sprintf("scratch/%d", n), func(b *testing.B) {
			for b.Loop() {
				NewBase(nil, members, minSlots)
			}
		})
		b.Run(fmt.Sprintf("remove/%d", n), func(b *testing.B) {
			for b.Loop() {
				NewBase(base, members[1:], minSlots)
			}
		})
		without := NewBase(base, members[1:], minSlots)
		b.Run(fmt.Sprintf("add/%d", n), func(b *testing.B) {
			for b.Loop() {
				NewBase(without, members, minSlots)
			}
		})
		levels := slices.Repeat([]int{full}, n)
		levels[n/2] = 0
		b.Run(fmt.Sprintf("fill/%d", n), func(b *testing.B) {
			for b.Loop() {
				base.fill(levels)
			}
		})
	}
	skewed := membersOf(append(slices.Repeat([]int{api.MaxWeight}, 10), slices.Repeat([]int{1}, 990)...)...)
	b.Run("scratch/skewed", func(b *testing.B) {
		for b.Loop() {
			NewBase(nil, skewed, minSlots)
		}
	})
}
