package main

import (
	"os"
	"testing"

	"github.com/weirproject/weir/testenv/manpage"
)

func TestManualHasEveryCommand(t *testing.T) { manpage.Check(t, (&cli{getenv: os.Getenv}).root(), "1") }
