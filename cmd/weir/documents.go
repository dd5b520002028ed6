package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/api/client"
	"github.com/weirproject/weir/document"
)

// documents are those of files, folders and the standard input, in order.
type documents struct {
	all    []document.Document
	places map[string]*document.Source // by kind and key
}

// keyOf names an object as the controllers do.
func keyOf(o api.Object) string {
	switch one := o.(type) {
	case *api.Service:
		return api.ServiceKey(one)
	case *api.Policy:
		return "policy"
	}
	return o.Key()
}

// readDocuments reads all of them, or tells all faults.
func (c *cli) readDocuments(paths []string) (*documents, error) {
	d := &documents{places: map[string]*document.Source{}}
	var faults []error
	for _, path := range paths {
		files, err := filesOf(path)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		for _, file := range files {
			faults = append(faults, d.read(c, file))
		}
	}
	return d, errors.Join(faults...)
}

// filesOf is a file itself, or the documents of a folder.
func filesOf(path string) ([]string, error) {
	if path == "-" {
		return []string{path}, nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	var files []string
	err = filepath.WalkDir(path, func(file string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case file != path && strings.HasPrefix(entry.Name(), "."):
			if entry.IsDir() {
				return fs.SkipDir
			}
		case !entry.IsDir() && slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(file)):
			files = append(files, file)
		}
		return nil
	})
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("%s has no documents: files that end in .yaml, .yml or .json", path)
	}
	return files, err
}

func (d *documents) read(c *cli, file string) error {
	text, err := c.readFile(file)
	if err != nil {
		return err
	}
	parsed, err := document.Parse(file, text)
	if err != nil {
		return err
	}
	var faults []error
	for _, one := range parsed {
		name := one.Object.Kind() + "/" + keyOf(one.Object)
		if first := d.places[name]; first != nil {
			faults = append(faults, one.Errorf("", "%s is defined a second time; first at %s:%d", name, first.File, first.Line))
			continue
		}
		d.places[name] = one.Source
		d.all = append(d.all, one)
	}
	return errors.Join(faults...)
}

// apply is what asks for the documents.
func (d *documents) apply(dry bool) (api.Apply, error) {
	asked := api.Apply{DryRun: dry}
	for _, one := range d.all {
		raw, err := json.Marshal(one.Object)
		if err != nil {
			return asked, err
		}
		asked.Objects = append(asked.Objects, api.ApplyObject{Kind: one.Object.Kind(), Object: raw})
	}
	return asked, nil
}

// locate gives the faults that a controller found their places in the files.
func (d *documents) locate(err error) error {
	var p *client.Problem
	if !errors.As(err, &p) || len(p.Faults) == 0 {
		return err
	}
	var located []error
	for _, f := range p.Faults {
		if source := d.places[f.Kind+"/"+f.Key]; source != nil {
			located = append(located, source.Errorf(f.Field, "%s", f.Reason))
		} else {
			located = append(located, errors.New(f.String()))
		}
	}
	return errors.Join(located...)
}
