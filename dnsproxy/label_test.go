package dnsproxy

import (
	"strings"
	"testing"
)

func TestLabelsAreSanitised(t *testing.T) {
	for text, want := range map[string]string{
		"-4abc123":                      "4abc123",
		"fd%gsf---gs7-f$gs--d7fddg-123": "fdgsf---gs7-fgs--d7fddg-123",
		"89fdgsf---gs7-fgs--d7fddg-":    "89fdgsf---gs7-fgs--d7fddg",
		"0-0":                           "0-0",
		"##fdgsf---gs7-fgs--d7fddg123456789012345678901234567890123456789-":    "fdgsf---gs7-fgs--d7fddg123456789012345678901234567890123456789",
		"fd%gsf---gs7-f$gs--d7fddg123456789012345678901234567890123456789-123": "fdgsf---gs7-fgs--d7fddg1234567890123456789012345678901234567891",
		"Web_App.v2":              "web-app-v2",
		"/a/b":                    "ab",
		"über":                    "ber",
		"":                        "",
		"---":                     "",
		strings.Repeat("x", 100):  strings.Repeat("x", 63),
		strings.Repeat("a-", 100): strings.Repeat("a-", 31) + "a",
	} {
		if got := label(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
	if got := fragment("My.App..v_2."); got != "my.app.v-2" {
		t.Errorf("got %q", got)
	}
}

func TestLabelsThatWouldBeEqualAreKeptApart(t *testing.T) {
	long := strings.Repeat("x", 63)
	a, b := distinct(long, long+"a"), distinct(long, long+"b")
	if a == b || len(a) > maxLabel || len(b) > maxLabel || label(a) != a {
		t.Errorf("got %q and %q", a, b)
	}
	if got := serviceLabel("web"); got != "_web" {
		t.Errorf("got %q", got)
	}
	if got, other := serviceLabel(long), serviceLabel(long[:62]+"y"); len(got) != maxLabel || got == other || !strings.HasPrefix(got, "_xxx") {
		t.Errorf("a service label of 63 characters: got %q (%d) and %q", got, len(got), other)
	}
}
