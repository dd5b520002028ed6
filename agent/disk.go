package agent

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// sealed is a value on disk with the checksum of its JSON, so that a file cut
// short or damaged is found out and discarded.
type sealed struct {
	SHA256 string          `json:"sha256"`
	Value  json.RawMessage `json:"value"`
}

// save writes the value so that after a crash at any line either the old file
// or the new one is there, whole.
func save(path string, value any) error {
	data, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	sum := sha256.Sum256(data)
	data, err = json.Marshal(sealed{SHA256: hex.EncodeToString(sum[:]), Value: data})
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	temporary, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	_, err = temporary.Write(data)
	if err == nil {
		err = temporary.Sync()
	}
	err = errors.Join(err, temporary.Close())
	if err == nil {
		err = os.Rename(temporary.Name(), path)
	}
	if err != nil {
		os.Remove(temporary.Name())
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// load reads what save wrote. It tells false when there is no file; a damaged
// one is an error.
func load(path string, value any) (bool, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	var s sealed
	if err := json.Unmarshal(data, &s); err != nil {
		return false, fmt.Errorf("read %s: damaged: %w", path, err)
	}
	if sum := sha256.Sum256(s.Value); hex.EncodeToString(sum[:]) != s.SHA256 {
		return false, fmt.Errorf("read %s: damaged: the checksum does not match", path)
	}
	if err := json.Unmarshal(s.Value, value); err != nil {
		return false, fmt.Errorf("read %s: %w", path, err)
	}
	return true, nil
}
