package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/dataplane/iptables"
	"github.com/weirproject/weir/dataplane/nft"
)

// The filters that there are.
const (
	nftablesFilter = "nftables"
	iptablesFilter = "iptables"
)

// zoneFilter is what the agent needs of a packet filter.
type zoneFilter interface {
	dataplane.Filter
	dataplane.Learner
	// Counters of the rules by name.
	Counters() (map[string]nft.Counter, error)
	// Drops hears what the rules drop, and log, until the context ends.
	Drops(ctx context.Context) (<-chan nft.Drop, error)
}

// filterTry is one filter that may do, with how to find out.
type filterTry struct {
	name      string
	supported func() error
	open      func() (zoneFilter, error)
}

// filterTries are in the order of preference.
func filterTries(ctx context.Context, log *slog.Logger, mode string) []filterTry {
	return []filterTry{
		{nftablesFilter, nft.Supported, func() (zoneFilter, error) {
			return nft.New(nft.Options{Log: log, Mode: nft.Mode(mode), VerifyEvery: verifyInterval})
		}},
		{iptablesFilter, func() error { return iptables.Supported(ctx, "") }, func() (zoneFilter, error) {
			return iptables.New(iptables.Options{Log: log, Observe: mode == "observe", VerifyEvery: verifyInterval})
		}},
	}
}

// pickFilter takes the first filter that works here, or the one that the
// configuration names, and says why.
func pickFilter(tries []filterTry, wanted string) (filter zoneFilter, why string, err error) {
	var unfit []error
	for _, t := range tries {
		if wanted != "auto" && wanted != t.name {
			continue
		}
		if err := t.supported(); err != nil {
			unfit = append(unfit, fmt.Errorf("%s does not work here: %w", t.name, err))
			continue
		}
		if filter, err = t.open(); err != nil {
			return nil, "", fmt.Errorf("open %s: %w", t.name, err)
		}
		switch {
		case wanted != "auto":
			why = "zones.backend is " + wanted
		case len(unfit) == 0:
			why = t.name + " works here"
		default:
			why = errors.Join(unfit...).Error()
		}
		return filter, why, nil
	}
	return nil, "", fmt.Errorf("zones need a packet filter (set zones.mode to off to go without): %w", errors.Join(unfit...))
}

// usedFilters keeps on disk which filters may have rules of ours.
func (c *zonesComponent) usedFilters() string { return c.agent.dataPath("zones-backends.json") }

// noteFilter writes down that the filter will have rules, before it has any.
func (c *zonesComponent) noteFilter() error {
	var used []string
	switch found, err := load(c.usedFilters(), &used); {
	case err != nil:
		used = []string{nftablesFilter, iptablesFilter} // who knows
	case !found:
		used = []string{nftablesFilter} // which leaves no trace where it is looked for
	}
	c.others = slices.DeleteFunc(slices.Clone(used), func(name string) bool { return c.filter != nil && name == c.filter.Backend() })
	if c.filter == nil || slices.Contains(used, c.filter.Backend()) {
		return nil
	}
	return save(c.usedFilters(), append(used, c.filter.Backend()))
}

// cleanOthers removes the rules that an agent before has made with another
// filter: after those of this one are in force, so that no moment is without.
func (c *zonesComponent) cleanOthers(ctx context.Context) error {
	if c.cleaned {
		return nil
	}
	for _, name := range c.others {
		found, err := cleanFilter(ctx, name)
		if err != nil {
			return fmt.Errorf("remove the rules of %s, which is not used any more: %w", name, err)
		}
		if found {
			c.agent.log.Info("rules of another filter removed", "component", "zones", "backend", name)
		}
	}
	left := []string{}
	if c.filter != nil {
		left = []string{c.filter.Backend()}
	}
	if len(c.others) > 0 {
		if err := save(c.usedFilters(), left); err != nil {
			return err
		}
	}
	c.others, c.cleaned = nil, true
	return nil
}

// cleanFilter removes our rules from one filter. What this host cannot do has
// none.
func cleanFilter(ctx context.Context, name string) (found bool, err error) {
	if name == iptablesFilter {
		return iptables.Cleanup(ctx)
	}
	if nft.Supported() != nil {
		return false, nil
	}
	return nft.Cleanup()
}
