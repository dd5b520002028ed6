package dnsproxy

import "testing"

func TestLowerCaseOfEveryByte(t *testing.T) {
	for c := range 256 {
		for at := range 16 {
			var name [maxName + 3]byte
			from := make([]byte, 20)
			from[at] = byte(c)
			lowerAll(&name, from, 16)
			for i, got := range name {
				want := byte(0)
				if i == at {
					want = lower(byte(c))
				}
				if got != want {
					t.Fatalf("byte %#x at %d: got %#x at %d, want %#x", c, at, got, i, want)
				}
			}
		}
	}
}
