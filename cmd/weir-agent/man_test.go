package main

import (
	"testing"

	"github.com/weirproject/weir/testenv/manpage"
)

func TestManualHasEveryCommand(t *testing.T) { manpage.Check(t, command(), "8") }
