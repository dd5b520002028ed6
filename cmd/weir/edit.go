package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/document"
)

func (c *cli) editCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "edit KIND KEY",
		Short: "Change one of the cluster's objects in an editor",
		Long: `Change one of the cluster's objects in $EDITOR, or vi. It is written only if nobody
has changed it meanwhile. What is refused is kept in a file, to be put right and
applied with weir apply -f.`,
		Example: "  weir edit service web.shop",
		Args:    arguments(2, 2, "two: KIND and KEY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cluster, err := c.cluster()
			if err != nil {
				return err
			}
			defer cluster.Close()
			old, err := cluster.Object(cmd.Context(), args[0], args[1])
			if err != nil {
				return err
			}
			text, file, err := c.inEditor(cmd, old)
			if err != nil {
				return err
			}
			if text == nil {
				fmt.Fprintln(c.stderr, "nothing was changed")
				return os.Remove(file)
			}
			d, err := editedDocument(file, text, old)
			if err != nil {
				return fmt.Errorf("%w\nyour text is kept in %s", err, file)
			}
			asked, err := d.apply(false)
			if err != nil {
				return err
			}
			asked.Objects[0].Version = &old.Version
			if _, err := cluster.Apply(cmd.Context(), asked); err != nil {
				return fmt.Errorf("%w\nyour text is kept in %s", d.locate(err), file)
			}
			fmt.Fprintf(c.stdout, "%s/%s changed\n", old.Kind, old.Key)
			return os.Remove(file)
		},
	}
}

// inEditor is the text after an editor had it, and the file that it is in; nil
// when it is as it was.
func (c *cli) inEditor(cmd *cobra.Command, old api.Stored) (text []byte, file string, err error) {
	body, err := asYAML(old.Object)
	if err != nil {
		return nil, "", err
	}
	before := append([]byte("kind: "+old.Kind+"\n"), body...)
	f, err := os.CreateTemp("", "weir-edit-*.yaml") // 0600
	if err != nil {
		return nil, "", err
	}
	file = f.Name()
	_, err = f.Write(before)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, file, err
	}
	editor := c.getenv("EDITOR")
	if editor == "" {
		editor = "vi"
	}
	// EDITOR may have arguments, as a shell would take them.
	run := exec.CommandContext(cmd.Context(), "/bin/sh", "-c", editor+` "$1"`, "sh", file)
	run.Stdin, run.Stdout, run.Stderr = os.Stdin, c.stderr, c.stderr
	if err := run.Run(); err != nil {
		return nil, file, errors.Join(fmt.Errorf("edit with %s: %w", filepath.Base(editor), err), os.Remove(file))
	}
	if text, err = os.ReadFile(file); err != nil {
		return nil, file, err
	}
	if bytes.Equal(text, before) {
		return nil, file, nil
	}
	return text, file, nil
}

// editedDocument is the one document of the text: the same object as before.
func editedDocument(file string, text []byte, old api.Stored) (*documents, error) {
	parsed, err := document.Parse(file, text)
	if err != nil {
		return nil, err
	}
	if len(parsed) != 1 {
		return nil, fmt.Errorf("%s holds %s, want the one that was there", file, plural(len(parsed), "document"))
	}
	one := parsed[0]
	if one.Object.Kind() != old.Kind || keyOf(one.Object) != old.Key {
		return nil, one.Errorf("", "it is %s/%s now: an object's name is for ever; apply a new one and delete the old", one.Object.Kind(), keyOf(one.Object))
	}
	if raw, err := json.Marshal(one.Object); err == nil && bytes.Equal(raw, old.Object) {
		return nil, errors.New("nothing was changed but the text's form")
	}
	return &documents{all: parsed, places: map[string]*document.Source{old.Kind + "/" + old.Key: one.Source}}, nil
}
