package main

import (
	"strings"
	"testing"
)

func TestCompletion(t *testing.T) {
	a := &agent{vips: services()}
	socket := a.start(t)
	tests := []struct {
		args []string
		want string
	}{
		{[]string{"vip", "show", ""}, "web.shop\ttcp, 1 of 3 backends up\ndns.default\ttcp, 0 of 0 backends up\ndns.default\tudp, 0 of 0 backends up\n:4\n"},
		{[]string{"vip", "show", "web.shop", ""}, ":4\n"},
		{[]string{"dns", "query", "we"}, "web.shop.vip.weir.internal\ttcp, 1 of 3 backends up\n:4\n"},
		{[]string{"dns", "query", "x", "S"}, "A\nAAAA\nCNAME\nNS\nPTR\nSOA\nSRV\nTXT\n:4\n"},
		{[]string{"status", "-o", ""}, "table\njson\nyaml\n:4\n"},
		{[]string{"completion", ""}, "bash\nzsh\nfish\npowershell\n:4\n"},
		{[]string{"zone", "explain", ""}, ":4\n"},
	}
	for _, test := range tests {
		got, _, code := run(t, map[string]string{"WEIR_SOCKET": socket}, append([]string{"__complete"}, test.args...)...)
		if code != 0 || got != test.want {
			t.Errorf("%v: got exit %d and %q, want %q", test.args, code, got, test.want)
		}
	}
	if got, _, code := run(t, map[string]string{"WEIR_SOCKET": "/nonexistent"}, "__complete", "vip", "show", ""); code != 0 || got != ":4\n" {
		t.Errorf("without an agent: got exit %d and %q", code, got)
	}
	for _, shell := range shells {
		if out, stderr, code := run(t, nil, "completion", shell); code != 0 || !strings.Contains(out, "weir") || stderr != "" {
			t.Errorf("completion %s: exit %d, %d bytes, %q", shell, code, len(out), stderr)
		}
	}
}
