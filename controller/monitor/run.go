package monitor

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/weirproject/weir/api"
)

// Run judges until ctx ends.
func (m *Monitor) Run(ctx context.Context) error {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		var orphans []api.Node
		if m.o.Orphans != nil {
			orphans = m.o.Orphans()
		}
		m.locked(func(now time.Time) {
			if late := now.Sub(last) - tick; late > lateness {
				m.forgive(late)
			}
			last = now
			m.adopt(orphans, now)
			for _, name := range m.names() {
				m.step(ctx, m.nodes[name], now)
			}
		})
	}
}

// forgive gives the nodes the time in which this controller had no processor.
func (m *Monitor) forgive(late time.Duration) {
	m.log.Warn("this controller had no processor for a while; nobody is judged for it", "late", late)
	for _, w := range m.nodes {
		w.heard = w.heard.Add(late)
		w.since = w.since.Add(late)
	}
}

// adopt takes the nodes without a stream over, and lets go of those that are
// neither here nor orphans any more.
func (m *Monitor) adopt(orphans []api.Node, now time.Time) {
	are := make(map[string]bool, len(orphans))
	for _, n := range orphans {
		are[n.Name] = true
		w := m.nodes[n.Name]
		if w == nil {
			w = m.watch(n)
			w.heard = now
		}
		if !w.streaming {
			w.node = n
		}
	}
	for name, w := range m.nodes {
		if !w.streaming && !are[name] && now.Sub(w.since) > time.Minute {
			delete(m.nodes, name) // another controller hears it
		}
	}
}

// step does what is due for one node.
func (m *Monitor) step(ctx context.Context, w *watched, now time.Time) {
	last := w.heard
	if w.reached.After(last) {
		last = w.reached
	}
	silent, pause := now.Sub(last), askEvery
	if !w.streaming {
		pause = orphanEvery
		if w.health == api.NodeAlive && silent < orphanEvery {
			return
		}
	}
	if silent <= askAfter && w.health == api.NodeAlive {
		return
	}
	if w.health == api.NodeDead {
		pause = orphanEvery
	}
	if now.Sub(w.asked) >= pause && len(w.node.Addresses) > 0 {
		w.asked = now
		m.ask(ctx, w, now)
	}
	switch w.health {
	case api.NodeAlive:
		if silent > suspectAfter && w.missed.After(last) && !m.deaf(w, now) {
			m.judge(w, api.NodeSuspect, now)
		}
	case api.NodeSuspect:
		switch {
		case last.After(w.since):
			m.judge(w, api.NodeAlive, now)
		case now.Sub(w.since) >= deadAfter && w.missed.After(last) && !m.deaf(w, now):
			m.judge(w, api.NodeDead, now)
		}
	case api.NodeDead:
		if last.After(w.since) {
			m.judge(w, api.NodeAlive, now)
		}
	}
}

// deaf tells whether it is this controller that hears nobody: all of its other
// streams are silent too.
func (m *Monitor) deaf(w *watched, now time.Time) bool {
	others := false
	for _, o := range m.nodes {
		if o == w || !o.streaming || o.health == api.NodeDead {
			continue
		}
		if now.Sub(o.heard) < askAfter {
			return false
		}
		others = true
	}
	return others
}

// ask has neighbours, and this controller itself, try the node.
func (m *Monitor) ask(ctx context.Context, w *watched, now time.Time) {
	var able []string
	for name, o := range m.nodes {
		if o != w && o.streaming && now.Sub(o.heard) < askAfter {
			able = append(able, name)
		}
	}
	rand.Shuffle(len(able), func(i, j int) { able[i], able[j] = able[j], able[i] })
	p := api.Probe{Node: w.node, Within: api.Duration(probeWithin)}
	for _, via := range able[:min(len(able), askOf)] {
		go m.try(ctx, w.node.Name, func(ctx context.Context) (bool, error) { return m.o.Probe(ctx, via, p) })
	}
	if m.o.Dial != nil {
		go m.try(ctx, w.node.Name, func(ctx context.Context) (bool, error) { return m.o.Dial(ctx, p.Node, probeWithin) })
	}
}

// try notes what came of a probe. An error says nothing of the node.
func (m *Monitor) try(ctx context.Context, node string, probe func(context.Context) (bool, error)) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, 2*probeWithin)
	defer cancel()
	reached, err := probe(ctx)
	if err != nil {
		return
	}
	m.locked(func(now time.Time) {
		w := m.nodes[node]
		switch {
		case w == nil:
		case reached:
			w.reached = now
		case time.Since(began) < 2*probeWithin+lateness:
			w.missed = began
		}
	})
}
