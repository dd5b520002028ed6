package store

import (
	"errors"
	"fmt"
)

// check refuses a commit that no store takes.
func check(conditions []Condition, ops []Op) error {
	if len(ops) > MaxOps || len(conditions) > MaxOps {
		return fmt.Errorf("commit %d operations on %d conditions: at most %d of each", len(ops), len(conditions), MaxOps)
	}
	if len(ops) == 0 {
		return errors.New("commit: there is nothing to write")
	}
	size, seen := 0, make(map[string]bool, len(ops))
	for _, op := range ops {
		switch {
		case op.Key == "":
			return errors.New("commit: a key is empty")
		case seen[op.Key]:
			return fmt.Errorf("commit: the key %s is there twice", op.Key)
		}
		seen[op.Key] = true
		size += len(op.Key) + len(op.Value)
	}
	if size > MaxValue {
		return fmt.Errorf("commit %s: %d bytes are more than %d", ops[0].Key, size, MaxValue)
	}
	return nil
}
