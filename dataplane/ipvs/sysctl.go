package ipvs

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// settings below net.ipv4.vs, in the network namespace.
func settings(release string) map[string]string {
	reuse := "1"
	if olderThan(release, 5, 9) {
		// There 1 delays the reuse of a client's port by a second, and drops.
		reuse = "0"
	}
	return map[string]string{
		// Connections to a removed destination end, instead of vanishing until
		// they time out.
		"expire_nodest_conn": "1",
		// Clients with affinity move when their destination drains.
		"expire_quiescent_template": "1",
		// What IPVS sends is seen by NAT: it is masqueraded where needed.
		"conntrack":       "1",
		"conn_reuse_mode": reuse,
	}
}

// olderThan reads the kernel's release; one that cannot be read is new.
func olderThan(release string, major, minor int) bool {
	var a, b int
	if n, _ := fmt.Sscanf(release, "%d.%d", &a, &b); n < 2 {
		return false
	}
	return a < major || a == major && b < minor
}

func kernelRelease() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

// sysctls writes settings and remembers in a file what they were.
type sysctls struct {
	dir  string // /proc/sys/net/ipv4/vs
	file string // "" remembers nothing
}

// set writes what differs and tells how many. What is remembered already is
// not overwritten: it is older than us. A setting that the kernel does not have
// is passed over.
func (s sysctls) set(wanted map[string]string) (changed int, err error) {
	kept, err := s.remembered()
	if err != nil {
		return 0, err
	}
	differs := map[string]string{}
	for name, value := range wanted {
		now, err := os.ReadFile(filepath.Join(s.dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("read sysctl: %w", err)
		}
		if was := strings.TrimSpace(string(now)); was != value {
			differs[name] = value
			if _, known := kept[name]; !known {
				kept[name] = was
			}
		}
	}
	if len(differs) == 0 {
		return 0, nil
	}
	if err := s.remember(kept); err != nil { // first: a crash must not lose them
		return 0, err
	}
	for name, value := range differs {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(value), 0); err != nil {
			return changed, fmt.Errorf("write sysctl: %w", err)
		}
		changed++
	}
	return changed, nil
}

// restore writes back what was remembered, and forgets it.
func (s sysctls) restore() (restored int, err error) {
	kept, err := s.remembered()
	if err != nil || len(kept) == 0 {
		return 0, err
	}
	for name, value := range kept {
		err := os.WriteFile(filepath.Join(s.dir, name), []byte(value), 0)
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // the module is gone, and with it the setting
			return restored, fmt.Errorf("restore sysctl: %w", err)
		}
		restored++
	}
	return restored, os.Remove(s.file)
}

func (s sysctls) remembered() (map[string]string, error) {
	kept := map[string]string{}
	if s.file == "" {
		return kept, nil
	}
	data, err := os.ReadFile(s.file)
	if errors.Is(err, fs.ErrNotExist) {
		return kept, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &kept)
	}
	if err != nil {
		return nil, fmt.Errorf("read the sysctls as they were: %w", err)
	}
	return kept, nil
}

func (s sysctls) remember(kept map[string]string) error {
	if s.file == "" {
		return nil
	}
	data, err := json.Marshal(kept)
	if err != nil {
		return err
	}
	next := s.file + ".new"
	if err := errors.Join(os.WriteFile(next, data, 0o600), os.Rename(next, s.file)); err != nil {
		return fmt.Errorf("keep the sysctls as they were: %w", err)
	}
	return nil
}

// loaded tells whether IPVS is in the kernel.
func loaded() bool {
	_, err := os.Stat(sysctlDir)
	return err == nil
}
