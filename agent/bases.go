package agent

import (
	"maps"
	"slices"

	"github.com/weirproject/weir/vip"
)

// loadBases returns the Maglev tables that the agent before had: with them, a
// restart moves no client.
func (a *Agent) loadBases() map[string]*vip.Base {
	var kept map[string][]byte
	if _, err := load(a.dataPath("maglev.json"), &kept); err != nil {
		a.log.Warn("kept maglev tables discarded", "error", err)
		return nil
	}
	bases := map[string]*vip.Base{}
	for name, data := range kept {
		b := new(vip.Base)
		if err := b.UnmarshalBinary(data); err != nil {
			a.log.Warn("kept maglev table discarded", "service", name, "error", err)
			continue
		}
		bases[name] = b
	}
	return bases
}

// keepBases writes the tables down when one of them is another than last time.
func (v *vipComponent) keepBases() {
	bases := v.compiler.Bases()
	if maps.Equal(bases, v.bases) {
		return
	}
	kept := make(map[string][]byte, len(bases))
	for _, name := range slices.Sorted(maps.Keys(bases)) {
		data, err := bases[name].MarshalBinary()
		if err != nil {
			v.agent.log.Warn("maglev table not kept", "service", name, "error", err)
			return
		}
		kept[name] = data
	}
	if err := save(v.agent.dataPath("maglev.json"), kept); err != nil {
		v.agent.log.Warn("maglev tables not kept", "error", err)
		return
	}
	v.bases = bases
}
