// Package version tells which build this is.
package version

import "runtime/debug"

// Version is set by the linker.
var Version = ""

// String is the version, or the revision that the Go tool recorded, or dev.
func String() string {
	if Version != "" {
		return Version
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return s.Value
			}
		}
	}
	return "dev"
}
