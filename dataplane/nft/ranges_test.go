package nft

import (
	"slices"
	"testing"

	"github.com/google/nftables"
)

func TestSpansJoinWhatTouches(t *testing.T) {
	for _, c := range []struct {
		name string
		in   []string
		v6   bool
		want string
	}{
		{"none", nil, false, ""},
		{"other family", []string{"fd00::/8"}, false, ""},
		{"neighbours", []string{"10.0.0.2/32", "10.0.0.1/32", "10.0.0.4/30"}, false, "10.0.0.1-10.0.0.2 10.0.0.4-10.0.0.7 "},
		{"contained", []string{"10.0.0.0/8", "10.1.0.0/16", "10.0.0.0/9"}, false, "10.0.0.0-10.255.255.255 "},
		{"everything", []string{"0.0.0.0/0"}, false, "0.0.0.0-255.255.255.255 "},
		{"both ends", []string{"255.255.255.255/32", "0.0.0.0/32"}, false, "0.0.0.0-0.0.0.0 255.255.255.255-255.255.255.255 "},
		{"halves", []string{"128.0.0.0/1", "0.0.0.0/1"}, false, "0.0.0.0-255.255.255.255 "},
		{"six", []string{"ffff::/16", "fd00::/12", "::/0"}, true, "::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "},
		{"six neighbours", []string{"fd00::1/128", "fd00::2/127"}, true, "fd00::1-fd00::3 "},
	} {
		got, err := spans(prefixes(c.in...), c.v6)
		if err != nil {
			t.Fatal(err)
		}
		text := ""
		for _, s := range got {
			text += s.first.String() + "-" + s.last.String() + " "
		}
		if text != c.want {
			t.Errorf("%s: got %q, want %q", c.name, text, c.want)
		}
		back := elements(got)
		slices.Reverse(back)
		if !slices.Equal(spansOf(back), got) {
			t.Errorf("%s: read back as %v, want %v", c.name, spansOf(back), got)
		}
	}
}

func TestSpansOfTouchingForeignElements(t *testing.T) {
	key := func(last byte, end bool) nftables.SetElement {
		return nftables.SetElement{Key: []byte{10, 0, 0, last}, IntervalEnd: end}
	}
	got := spansOf([]nftables.SetElement{key(2, false), key(3, true), key(1, false), key(2, true)})
	if len(got) != 2 || got[0].last.String() != "10.0.0.1" || got[1].first.String() != "10.0.0.2" {
		t.Errorf("got %v, want two ranges of one address", got)
	}
}

func TestMarksOfOthersAreNoMarks(t *testing.T) {
	if name, mark := readMarks(writeMarks("web", "12345678")); name != "web" || mark != "12345678" {
		t.Errorf("got %q, %q", name, mark)
	}
	for _, data := range [][]byte{nil, {0}, {0, 0}, {0, 200, 1}, {0x77, 9, 1, 2}} {
		if _, mark := readMarks(data); mark != "" {
			t.Errorf("%v: got mark %q", data, mark)
		}
	}
}
