package owner

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
)

// told lists the addresses that have a file and are in states no more.
func (h *Hook) told(states map[netip.Addr]string) (gone []netip.Addr, err error) {
	files, err := filepath.Glob(filepath.Join(h.o.Dir, "*.state"))
	for _, f := range files {
		a, err := netip.ParseAddr(strings.TrimSuffix(filepath.Base(f), ".state"))
		if _, ok := states[a]; err == nil && !ok {
			gone = append(gone, a)
		}
	}
	return gone, err
}

func (h *Hook) write(served []Served, states map[netip.Addr]string, gone []netip.Addr) error {
	if served == nil {
		served = []Served{}
	}
	document, err := json.MarshalIndent(map[string]any{"vips": served}, "", "  ")
	if err != nil {
		return err
	}
	files := map[string]string{HookFile: string(document) + "\n", BirdFile4: "", BirdFile6: ""}
	for _, s := range served {
		files[filepath.Base(h.stateFile(s.VIP))] = states[s.VIP] + "\n"
		if !s.Up {
			continue
		}
		file := BirdFile6
		if s.VIP.Is4() {
			file = BirdFile4
		}
		files[file] += fmt.Sprintf("route %s/%d blackhole;\n", s.VIP, s.VIP.BitLen())
	}
	var failed error
	for name, text := range files {
		failed = errors.Join(failed, replace(filepath.Join(h.o.Dir, name), text))
	}
	for _, a := range gone {
		failed = errors.Join(failed, replace(h.stateFile(a), StateDown+"\n"))
	}
	return failed
}

func (h *Hook) stateFile(a netip.Addr) string { return filepath.Join(h.o.Dir, a.String()+".state") }

// replace gives the file the text in one step, unless it has it already: a
// daemon that watches it sees changes only.
func replace(path, text string) error {
	if old, err := os.ReadFile(path); err == nil && string(old) == text {
		return nil
	}
	temporary := path + ".new"
	if err := os.WriteFile(temporary, []byte(text), 0o644); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}
