package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/weirproject/weir/zones/policyfile"
)

// canWrite tells why a file could not be written.
func canWrite(file string) error {
	file = realFile(file)
	temporary, err := os.CreateTemp(filepath.Dir(file), ".policy-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	temporary.Close()
	return os.Remove(temporary.Name())
}

// realFile follows links, so that what they lead to is written and they stay.
func realFile(file string) string {
	if real, err := filepath.EvalSymlinks(file); err == nil {
		return real
	}
	return file
}

// writePolicy puts the policy into its place, so that after a crash the old file
// or the new one is there, whole. Other documents of the file stay.
func writePolicy(at place, text []byte) error {
	at.File = realFile(at.File)
	out, mode := text, os.FileMode(0o644)
	if at.Line > 0 {
		old, err := os.ReadFile(at.File)
		if err != nil {
			return fmt.Errorf("write the policy: %w", err)
		}
		if info, err := os.Stat(at.File); err == nil {
			mode = info.Mode().Perm()
		}
		out = policyfile.Replace(old, at.Line, text)
	}
	temporary, err := os.CreateTemp(filepath.Dir(at.File), ".policy-*")
	if err != nil {
		return fmt.Errorf("write the policy: %w", err)
	}
	_, err = temporary.Write(out)
	err = errors.Join(err, temporary.Chmod(mode), temporary.Sync(), temporary.Close())
	if err == nil {
		err = os.Rename(temporary.Name(), at.File)
	}
	if err != nil {
		os.Remove(temporary.Name())
		return fmt.Errorf("write the policy into %s: %w", at.File, err)
	}
	return nil
}
