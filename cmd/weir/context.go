package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/weirproject/weir/api/client"
	"github.com/weirproject/weir/document"
)

// contexts are the clusters that somebody has logged in to, in a file that its
// owner alone can read.
type contexts struct {
	Current  string         `json:"current,omitempty"`
	Contexts []contextEntry `json:"contexts,omitempty"`
}

// contextEntry is one of them.
type contextEntry struct {
	Name        string    `json:"name"`
	Controllers []string  `json:"controllers"`
	ClusterID   string    `json:"cluster_id"`
	CA          string    `json:"ca"` // PEM
	Token       string    `json:"token,omitempty"`
	Certificate string    `json:"certificate,omitempty"` // PEM
	Key         string    `json:"key,omitempty"`         // PEM
	Expires     time.Time `json:"expires,omitzero"`
}

// contextsPath is WEIR_CONTEXTS, or contexts.yaml in the user's configuration.
func (c *cli) contextsPath() (string, error) {
	if path := c.getenv("WEIR_CONTEXTS"); path != "" {
		return path, nil
	}
	folder := c.getenv("XDG_CONFIG_HOME")
	if folder == "" {
		home := c.getenv("HOME")
		if home == "" {
			return "", errors.New("find the contexts: neither HOME nor WEIR_CONTEXTS is set")
		}
		folder = filepath.Join(home, ".config")
	}
	return filepath.Join(folder, "weir", "contexts.yaml"), nil
}

// readContexts reads the file; none is none yet. It refuses a file that others
// can read, as there are secrets in it.
func (c *cli) readContexts() (contexts, error) {
	var all contexts
	path, err := c.contextsPath()
	if err != nil {
		return all, err
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return all, nil
	case err != nil:
		return all, fmt.Errorf("read the contexts: %w", err)
	case info.Mode().Perm()&0o077 != 0:
		return all, fmt.Errorf("read the contexts: others can read %s, and there are secrets in it: chmod 600 it", path)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return all, fmt.Errorf("read the contexts: %w", err)
	}
	_, err = document.Decode(path, text, &all)
	return all, err
}

func (c *cli) writeContexts(all contexts) error {
	path, err := c.contextsPath()
	if err != nil {
		return err
	}
	text, err := asYAML(all)
	if err != nil {
		return fmt.Errorf("write the contexts: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("write the contexts: %w", err)
	}
	part, err := os.CreateTemp(filepath.Dir(path), ".contexts-*") // 0600
	if err != nil {
		return fmt.Errorf("write the contexts: %w", err)
	}
	defer os.Remove(part.Name())
	_, err = part.Write(text)
	if err := errors.Join(err, part.Close()); err != nil {
		return fmt.Errorf("write the contexts: %w", err)
	}
	return os.Rename(part.Name(), path)
}

// find is a context by its name.
func (all *contexts) find(name string) (*contextEntry, error) {
	i := slices.IndexFunc(all.Contexts, func(e contextEntry) bool { return e.Name == name })
	if i >= 0 {
		return &all.Contexts[i], nil
	}
	if len(all.Contexts) == 0 {
		return nil, errors.New("no cluster is known here: log in with weir login URL --token TOKEN")
	}
	var names []string
	for _, e := range all.Contexts {
		names = append(names, e.Name)
	}
	return nil, fmt.Errorf("there is no context %q; there are %s", name, strings.Join(names, ", "))
}

// cluster is a client of the cluster that --context, WEIR_CONTEXT or the
// current context names.
func (c *cli) cluster() (*client.Cluster, error) {
	all, err := c.readContexts()
	if err != nil {
		return nil, err
	}
	name := all.Current
	for _, other := range []string{c.getenv("WEIR_CONTEXT"), c.context} {
		if other != "" {
			name = other
		}
	}
	entry, err := all.find(name)
	if err != nil {
		return nil, err
	}
	if !entry.Expires.IsZero() && entry.Expires.Before(c.now()) {
		return nil, fmt.Errorf("the login to %s has ended at %s: log in again with weir login", entry.Name, entry.Expires.Local().Format(time.DateTime))
	}
	o := client.ClusterOptions{Controllers: entry.Controllers, ClusterID: entry.ClusterID, CA: []byte(entry.CA), Token: entry.Token}
	if entry.Certificate != "" {
		pair, err := tls.X509KeyPair([]byte(entry.Certificate), []byte(entry.Key))
		if err != nil {
			return nil, fmt.Errorf("read the certificate of the context %s: %w", entry.Name, err)
		}
		o.Certificate = &pair
	}
	return client.NewCluster(o)
}

func (c *cli) contextCommand() *cobra.Command {
	return c.noun("context", "The clusters that you have logged in to", c.contextListCommand(), c.contextUseCommand())
}

// shownContext is a context without its secrets.
type shownContext struct {
	Name        string    `json:"name"`
	Current     bool      `json:"current"`
	Controllers []string  `json:"controllers"`
	ClusterID   string    `json:"cluster_id"`
	Expires     time.Time `json:"expires,omitzero"`
}

func (c *cli) contextListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the contexts; the current one has a star", Example: "  weir context list", Args: arguments(0, 0, ""),
		RunE: func(*cobra.Command, []string) error {
			all, err := c.readContexts()
			if err != nil {
				return err
			}
			shown := []shownContext{}
			for _, e := range all.Contexts {
				shown = append(shown, shownContext{e.Name, e.Name == all.Current, e.Controllers, e.ClusterID, e.Expires})
			}
			return c.print(shown, func(p *page) {
				p.row("", "NAME", "CONTROLLERS", "CLUSTER", "EXPIRES")
				for _, e := range shown {
					star, expires := "", "-"
					if e.Current {
						star = "*"
					}
					if !e.Expires.IsZero() {
						expires = e.Expires.Local().Format(time.DateTime)
					}
					p.row(star, e.Name, list(e.Controllers), e.ClusterID, expires)
				}
			})
		},
	}
}

func (c *cli) contextUseCommand() *cobra.Command {
	return &cobra.Command{
		Use: "use NAME", Short: "Make a context the current one", Example: "  weir context use lab", Args: arguments(1, 1, "one: NAME"),
		RunE: func(_ *cobra.Command, args []string) error {
			all, err := c.readContexts()
			if err != nil {
				return err
			}
			if _, err := all.find(args[0]); err != nil {
				return err
			}
			all.Current = args[0]
			return c.writeContexts(all)
		},
	}
}
