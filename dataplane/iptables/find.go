package iptables

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/weirproject/weir/dataplane"
)

// find tells what is ours in the kernel. Sets that the ruleset has in a version
// that is known to be there are not read back every time. It needs f.mu.
func (f *Filter) find(ctx context.Context, r *dataplane.Ruleset) (*state, error) {
	found := newState()
	if err := f.findRules(ctx, found); err != nil {
		return nil, err
	}
	if f.last != nil && r != nil && time.Since(f.verified) < f.options.VerifyEvery {
		found.sets = f.last.sets
		return found, nil
	}
	if err := f.findSets(ctx, found); err != nil {
		return nil, err
	}
	f.verified = time.Now()
	if f.last != nil {
		for name, s := range f.last.sets {
			if o := found.sets[name]; o != nil && slices.Equal(o.members, s.members) && o.max == s.max && o.typ == s.typ {
				o.version = s.version
			}
		}
	}
	return found, nil
}

// findRules lists our chains and their rules.
func (f *Filter) findRules(ctx context.Context, found *state) error {
	for _, v6 := range f.commands.families() {
		out, err := f.commands.run(ctx, nil, f.commands.name(v6, "save"), "-c")
		if err != nil {
			return err
		}
		found.readRules(out, v6)
	}
	return nil
}

// readRules reads what iptables-save writes.
func (s *state) readRules(out []byte, v6 bool) {
	t := table{v6: v6}
	places := map[string]int{} // rules so far, by built-in chain
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		line := lines.Text()
		switch {
		case strings.HasPrefix(line, "*"):
			t.name = line[1:]
			clear(places)
		case strings.HasPrefix(line, ":"+ownChains):
			chain, _, _ := strings.Cut(line[1:], " ")
			c := s.in(t)
			c.rules[chain] = append(c.rules[chain], []rule{}...)
		case strings.HasPrefix(line, "["):
			s.readRule(t, line, places)
		}
	}
}

// readRule reads a line such as [5:420] -A WEIR-INPUT … -m comment --comment x.
func (s *state) readRule(t table, line string, places map[string]int) {
	counters, rest, ok := strings.Cut(line, " -A ")
	if !ok {
		return
	}
	chain, text, _ := strings.Cut(rest, " ")
	if !strings.HasPrefix(chain, ownChains) {
		places[chain]++
		if _, to, ok := strings.Cut(text, "-j "+ownChains); ok && hookOf(ownChains+to) == chain && text == "-j "+ownChains+to {
			c := s.in(t)
			if c.hooks[chain]++; places[chain] != 1 {
				c.hooks[chain] = -1
			}
		}
		return
	}
	r := rule{}
	packets, bytes, _ := strings.Cut(strings.Trim(counters, "[]"), ":")
	r.packets, _ = strconv.ParseUint(packets, 10, 64)
	r.bytes, _ = strconv.ParseUint(bytes, 10, 64)
	if _, after, ok := strings.Cut(text, "--comment "); ok {
		r.mark, r.name, _ = strings.Cut(word(after), " ")
		r.counts = strings.HasSuffix(r.mark, "#")
	}
	c := s.in(t)
	c.rules[chain] = append(c.rules[chain], r)
}

// word reads the first word, which may be in quotes.
func word(text string) string {
	if !strings.HasPrefix(text, `"`) {
		w, _, _ := strings.Cut(text, " ")
		return w
	}
	var out strings.Builder
	for i := 1; i < len(text); i++ {
		switch {
		case text[i] == '"':
			return out.String()
		case text[i] == '\\' && i+1 < len(text):
			i++
		}
		out.WriteByte(text[i])
	}
	return out.String()
}

// findSets lists our sets with their members.
func (f *Filter) findSets(ctx context.Context, found *state) error {
	out, err := f.commands.run(ctx, nil, "ipset", "save")
	if err != nil {
		return err
	}
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		words := strings.Fields(lines.Text())
		if len(words) < 3 || !strings.HasPrefix(words[1], "weir4-") && !strings.HasPrefix(words[1], "weir6-") {
			continue
		}
		name := words[1]
		if words[0] == "create" {
			s := &set{typ: words[2], v6: strings.HasPrefix(name, "weir6-")}
			if i := slices.Index(words, "maxelem"); i > 0 && i+1 < len(words) {
				if s.max, err = strconv.Atoi(words[i+1]); err != nil {
					return fmt.Errorf("read set %s: %w", name, err)
				}
			}
			found.sets[name] = s
		} else if s := found.sets[name]; s != nil && !s.learns() {
			s.members = append(s.members, words[2])
		} else if s != nil {
			f.remember(name, words)
		}
	}
	for _, s := range found.sets {
		slices.Sort(s.members)
	}
	return nil
}
