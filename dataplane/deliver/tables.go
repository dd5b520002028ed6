package deliver

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/weirproject/weir/bpf"
	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/dataplane/internal/bulk"
)

// setConfig writes the one element of the map config.
func (d *Deliverer) setConfig(w *wanted, c *dataplane.Changes) error {
	m := d.maps[bpf.DeliverMapConfig]
	var held bpf.DeliverConfig
	if err := m.Lookup(uint32(0), &held); err != nil {
		return fmt.Errorf("read config: %w", err)
	}
	repair := d.made.config != nil && *d.made.config == w.config
	if held != w.config {
		if err := m.Put(uint32(0), &w.config); err != nil {
			return fmt.Errorf("write config: %w", err)
		}
		d.count(c, repair, "config", "0")
	}
	made := w.config
	d.made.config = &made
	return nil
}

// setHash makes the map hold what is wanted: first it adds, then it removes.
func setHash[K, V comparable](d *Deliverer, name string, want, made map[K]V, c *dataplane.Changes) error {
	m := d.maps[name]
	held, err := bulk.Hash[K, V](m)
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	for key, value := range want {
		if now, there := held[key]; !there || now != value {
			if err := m.Put(&key, &value); err != nil {
				return fmt.Errorf("write %s: %w", name, err)
			}
			before, ours := made[key]
			d.count(c, ours && before == value, name, fmt.Sprint(key))
		}
		made[key] = value
	}
	for key := range held {
		if _, wanted := want[key]; wanted {
			continue
		}
		if err := m.Delete(&key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("remove from %s: %w", name, err)
		}
		c.Removed++
	}
	for key := range made {
		if _, wanted := want[key]; !wanted {
			delete(made, key)
		}
	}
	return nil
}

// count books one change: a repair when the object was ours and unchanged by us.
func (d *Deliverer) count(c *dataplane.Changes, repair bool, kind, name string) {
	if !repair {
		c.Written++
		return
	}
	c.Repaired++
	d.log.Warn("kernel object repaired", "kind", kind, "name", name)
}
