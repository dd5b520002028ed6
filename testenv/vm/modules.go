package vm

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
)

// module is a file of the kernel's and what it needs to have loaded first.
type module struct {
	name    string
	path    string // below the folder of the kernel's modules
	depends []string
}

// closure lists the modules that were asked for and all that they depend on;
// none comes before what it needs.
func closure(root string, asked []string) ([]module, error) {
	paths, err := modulePaths(root)
	if err != nil {
		return nil, err
	}
	var all []module
	seen := map[string]bool{}
	var visit func(name string) error
	visit = func(name string) error {
		if name = canonical(name); seen[name] {
			return nil
		}
		seen[name] = true
		path, ok := paths[name]
		if !ok {
			return fmt.Errorf("the kernel in %s has no module %s", root, name)
		}
		depends, err := dependencies(filepath.Join(root, path))
		if err != nil {
			return fmt.Errorf("read module %s: %w", name, err)
		}
		for _, d := range depends {
			if err := visit(d); err != nil {
				return err
			}
		}
		all = append(all, module{name, path, depends})
		return nil
	}
	for _, name := range asked {
		if err := visit(name); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// canonical spells a module as the kernel does: a file may have dashes.
func canonical(name string) string { return strings.ReplaceAll(name, "-", "_") }

func modulePaths(root string) (map[string]string, error) {
	paths := map[string]string{}
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name, ok := strings.CutSuffix(filepath.Base(path), ".ko"); ok {
			paths[canonical(name)], err = filepath.Rel(root, path)
		}
		return err
	})
	return paths, err
}

// dependencies reads the module's own list, in the section .modinfo.
func dependencies(path string) ([]string, error) {
	f, err := elf.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info := f.Section(".modinfo")
	if info == nil {
		return nil, fmt.Errorf("%s has no section .modinfo", path)
	}
	data, err := info.Data()
	if err != nil {
		return nil, err
	}
	for entry := range bytes.SplitSeq(data, []byte{0}) {
		if list, ok := bytes.CutPrefix(entry, []byte("depends=")); ok && len(list) > 0 {
			return strings.Split(string(list), ","), nil
		}
	}
	return nil, nil
}

// dependencyFile is what modprobe reads: modules.dep. It loads what a module
// needs from the end of the list on, so none comes before what needs it.
func dependencyFile(all []module) string {
	needs := map[string]map[string]bool{} // with what those need
	var b strings.Builder
	for i, m := range all {
		mine := map[string]bool{}
		for _, d := range m.depends {
			mine[canonical(d)] = true
			maps.Copy(mine, needs[canonical(d)])
		}
		needs[m.name] = mine
		b.WriteString(m.path + ":")
		for _, earlier := range slices.Backward(all[:i]) {
			if mine[earlier.name] {
				b.WriteString(" " + earlier.path)
			}
		}
		b.WriteString("\n")
	}
	return b.String()
}
