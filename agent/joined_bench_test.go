package agent

import (
	"encoding/json"
	"net/netip"
	"testing"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/vip"
)

// million is 10,000 services of 100 backends.
func million() *api.Snapshot {
	s := fleetOf(10_000)
	for i := range s.Services {
		s.Services[i].Backends = nil
		for j := range 100 {
			s.Services[i].Backends = append(s.Services[i].Backends, api.Backend{Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(j), byte(i >> 8), byte(i)}), 80)})
		}
	}
	return s
}

// BenchmarkOneBackendOfAMillion is what one backend's change costs the agent on
// the way from the stream to the tables, by step.
func BenchmarkOneBackendOfAMillion(b *testing.B) {
	s := million()
	service := api.ServiceKey(&s.Services[5000])
	weight := 1
	change := func(s *api.Snapshot) *api.SnapshotChange {
		weight = 3 - weight
		w := weight
		return &api.SnapshotChange{From: s.Revision, Revision: s.Revision + 1, Backends: []api.BackendChange{{
			Service: service, Backend: api.Backend{Address: s.Services[5000].Backends[50].Address, Weight: &w},
		}}}
	}
	b.Run("decode", func(b *testing.B) {
		line, _ := json.Marshal(api.Frame{Type: api.FrameChange, Change: change(s)})
		for b.Loop() {
			var f api.Frame
			if err := json.Unmarshal(line, &f); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("apply", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := s.Apply(change(s)); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("compile", func(b *testing.B) {
		var c vip.Compiler
		now := time.Now()
		up := func(string, api.Protocol, netip.AddrPort) (api.BackendState, string) { return api.Up, "" }
		c.Compile(s, vip.Options{State: up, Now: now}, vip.Changed{})
		b.ReportAllocs()
		for b.Loop() {
			next, err := s.Apply(change(s))
			if err != nil {
				b.Fatal(err)
			}
			s = next
			c.Compile(s, vip.Options{State: up, Now: now}, vip.Changed{})
		}
	})
	b.Run("nodes", func(b *testing.B) {
		var n nodeStates
		for b.Loop() {
			n.set(s, nil, nil, nil)
		}
	})
	b.Run("nodes, one dead", func(b *testing.B) {
		var n nodeStates
		dead := map[string]api.NodeHealth{"a7": api.NodeDead}
		up := func(*api.Service, api.Backend) bool { return true }
		for b.Loop() {
			n.set(s, dead, nil, up)
		}
	})
	b.Run("targets", func(b *testing.B) {
		a := &Agent{}
		a.edge = &edgeComponent{agent: a}
		for b.Loop() {
			a.healthTargets(s)
		}
	})
	b.Run("drains", func(b *testing.B) {
		n := 0
		for b.Loop() {
			for i := range s.Services {
				if s.Services[i].Drain > 0 {
					n++
				}
			}
		}
	})
	b.Run("keep", func(b *testing.B) {
		k := newKeeper(b.TempDir()+"/wanted.log", "c", "n", nil)
		c := change(s)
		k.put("e", s, nil)
		began := time.Now()
		if err := k.write(); err != nil {
			b.Fatal(err)
		}
		b.Logf("the whole: %d MB in %s", k.base>>20, time.Since(began))
		for b.Loop() {
			k.put("e", s, c)
			if err := k.write(); err != nil {
				b.Fatal(err)
			}
		}
	})
}
