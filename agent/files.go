package agent

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/document"
)

// documents are the objects of the state folders, each with its place.
type documents struct {
	nodes    []api.Node
	services []api.Service
	records  []api.Record
	policy   *api.Policy
	// sources has the place of every object, by kind and key.
	sources map[string]*document.Source
}

// readFolders reads every document of the folders. It takes all or nothing:
// with one bad file the state is not whole, and the last good one goes on. A
// folder that is not there counts as empty.
func readFolders(folders []string) (*documents, error) {
	d := &documents{sources: map[string]*document.Source{}}
	var faults []error
	for _, folder := range folders {
		files, err := stateFiles(folder)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		for _, file := range files {
			if err := d.readFile(file); err != nil {
				faults = append(faults, err)
			}
		}
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	slices.SortFunc(d.nodes, func(a, b api.Node) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(d.services, func(a, b api.Service) int { return cmp.Compare(serviceKey(a), serviceKey(b)) })
	slices.SortFunc(d.records, func(a, b api.Record) int { return cmp.Compare(a.Key(), b.Key()) })
	return d, nil
}

// stateFiles lists the files of a folder that hold state, in order. Hidden
// files and editors' leftovers are none.
func stateFiles(folder string) ([]string, error) {
	entries, err := os.ReadDir(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, &document.Error{File: folder, Reason: err.Error()}
	}
	var files []string
	for _, e := range entries {
		if isStateFile(e.Name()) && !e.IsDir() {
			files = append(files, filepath.Join(folder, e.Name()))
		}
	}
	return files, nil
}

func isStateFile(name string) bool {
	switch filepath.Ext(name) {
	case ".yaml", ".yml", ".json":
		return !strings.HasPrefix(name, ".")
	}
	return false
}

func (d *documents) readFile(file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return &document.Error{File: file, Reason: err.Error()}
	}
	parsed, err := document.Parse(file, data)
	if err != nil {
		return err
	}
	var faults []error
	for _, p := range parsed {
		if err := d.add(p); err != nil {
			faults = append(faults, err)
		}
	}
	return errors.Join(faults...)
}

func (d *documents) add(p document.Document) error {
	key := sourceKey(p.Object)
	if first, taken := d.sources[key]; taken {
		return p.Errorf("", "%s is defined a second time; first at %s:%d", describe(p.Object), first.File, first.Line)
	}
	d.sources[key] = p.Source
	switch o := p.Object.(type) {
	case *api.Node:
		d.nodes = append(d.nodes, *o)
	case *api.Service:
		d.services = append(d.services, *o)
	case *api.Record:
		d.records = append(d.records, *o)
	case *api.Policy:
		d.policy = o
	default:
		return p.Errorf("kind", "%s has no place in the state of a node", o.Kind())
	}
	return nil
}

// serviceKey tells services apart: one name may have a tcp and a udp service.
func serviceKey(s api.Service) string { return s.Key() + "/" + string(s.EffectiveProtocol()) }

func sourceKey(o api.Object) string {
	if s, ok := o.(*api.Service); ok {
		return s.Kind() + " " + serviceKey(*s)
	}
	return o.Kind() + " " + o.Key()
}

func describe(o api.Object) string {
	if o.Kind() == "policy" {
		return "the policy"
	}
	return fmt.Sprintf("the %s %q", o.Kind(), o.Key())
}
