package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"github.com/weirproject/weir/agent"
	"github.com/weirproject/weir/document"
)

// defaultFile is read when it exists and no other is named.
const defaultFile = "/etc/weir/agent.yaml"

// configFlags are the command-line flags: one per key of the configuration.
type configFlags struct {
	file     string
	logLevel slog.Level
	set      map[string]*string
	flags    *pflag.FlagSet
}

func (c *configFlags) register(flags *pflag.FlagSet) {
	c.flags, c.set = flags, map[string]*string{}
	flags.StringVar(&c.file, "config", defaultFile, "configuration file")
	flags.TextVar(&c.logLevel, "log-level", slog.LevelInfo, "least level that is logged: debug, info, warn or error")
	defaults := agent.DefaultConfig()
	for _, leaf := range document.Leaves(&defaults) {
		name := flagName(leaf)
		usage := "key " + strings.Join(leaf.Path, ".") + " of the configuration"
		c.set[name] = flags.String(name, leaf.String(), usage)
	}
}

// load reads the file, then the environment, then the flags.
func (c *configFlags) load() (agent.Config, error) {
	config := agent.DefaultConfig()
	source := &document.Source{File: c.file}
	data, err := os.ReadFile(c.file)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !c.flags.Changed("config"):
	case err != nil:
		return config, fmt.Errorf("read the configuration: %w", err)
	default:
		if source, err = document.Decode(c.file, data, &config); err != nil {
			return config, err
		}
	}
	for _, leaf := range document.Leaves(&config) {
		name := flagName(leaf)
		variable := "WEIR_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
		if text, ok := os.LookupEnv(variable); ok {
			if err := leaf.Set(text); err != nil {
				return config, fmt.Errorf("%s: %w", variable, err)
			}
		}
		if c.flags.Changed(name) {
			if err := leaf.Set(*c.set[name]); err != nil {
				return config, fmt.Errorf("%w: --%s: %w", errUsage, name, err)
			}
		}
	}
	return config, source.Locate(config.Validate())
}

func flagName(leaf document.Leaf) string {
	return strings.ReplaceAll(strings.Join(leaf.Path, "-"), "_", "-")
}
