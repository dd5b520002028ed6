package version

import "testing"

func TestTheLinkersVersionIsTold(t *testing.T) {
	if String() == "" {
		t.Error("a build without a version has no name at all")
	}
	defer func(before string) { Version = before }(Version)
	Version = "v1.2.3"
	if got := String(); got != "v1.2.3" {
		t.Errorf("got %q, want v1.2.3", got)
	}
}
