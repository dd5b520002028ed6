package main

import (
	"errors"
	"strings"
	"testing"
)

func TestWrongUseIsToldApart(t *testing.T) {
	for name, args := range map[string][]string{
		"is neither a variant nor": {"compare", "--only=ipvs"},
		"--output=yaml":            {"compare", "-o", "yaml"},
		"unknown flag":             {"soak", "--speed=1"},
		"unknown command":          {"ports", "now"},
		"Backends":                 {"update", "--backends=1000"},
	} {
		c := command()
		c.SetArgs(args)
		if err := c.Execute(); !errors.Is(err, errUsage) || !strings.Contains(err.Error(), name) {
			t.Errorf("weir-bench %s: got %v, want wrong usage about %s", strings.Join(args, " "), err, name)
		}
	}
}

func TestEveryCommandHasAPurpose(t *testing.T) {
	for _, c := range command().Commands() {
		if c.Short == "" {
			t.Errorf("%s has no purpose", c.Name())
		}
	}
}
