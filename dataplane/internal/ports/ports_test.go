package ports

import (
	"fmt"
	"strings"
	"testing"

	"github.com/weirproject/weir/api"
)

func parse(t *testing.T, text string) (all []api.PortRange) {
	for word := range strings.FieldsSeq(text) {
		p, err := api.ParsePortRange(word)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	return all
}

func TestMinus(t *testing.T) {
	for _, c := range []struct{ some, not, want string }{
		{"tcp/80", "tcp/80", "[] false"},
		{"tcp/80 udp/80", "tcp/80", "[udp/80] false"},
		{"tcp/80-90", "tcp/85", "[tcp/80-84 tcp/86-90] false"},
		{"tcp/80-90", "tcp/70-82 tcp/81-83 tcp/90-99", "[tcp/84-89] false"},
		{"tcp", "tcp/80", "[tcp/0-79 tcp/81-65535] false"},
		{"any", "tcp/1-65535", "[udp icmp] true"},
		{"any", "udp icmp", "[tcp] true"},
		{"any", "any", "[] false"},
		{"icmp tcp/1", "icmp", "[tcp/1] false"},
		{"tcp/1", "udp", "[tcp/1] false"},
	} {
		left, others := Minus(parse(t, c.some), parse(t, c.not))
		if got := fmt.Sprint(left, " ", others); got != c.want {
			t.Errorf("%s without %s: got %s, want %s", c.some, c.not, got, c.want)
		}
	}
}
