package resolvconf

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// origin is what resolv.conf was, beside its content.
type origin struct {
	Link   string      `json:"link,omitempty"` // it was a symbolic link with this text
	Absent bool        `json:"absent,omitempty"`
	Mode   fs.FileMode `json:"mode,omitempty"`
	UID    int         `json:"uid"`
	GID    int         `json:"gid"`
}

// setFile writes resolv.conf.
func (h *Host) setFile(w Want) (Outcome, error) {
	text, err := os.ReadFile(h.o.File)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Same, fmt.Errorf("read the host's resolv.conf: %w", err)
	}
	outcome := Written
	if link, _ := os.Readlink(h.o.File); link != "" || !isOurs(text) {
		if h.told != nil { // we had written it: this is another program's
			outcome = Repaired
			if err := h.rewritten(); err != nil {
				return Same, err
			}
		}
		if err := h.keep(text, link, err != nil); err != nil {
			return Same, fmt.Errorf("keep the host's resolv.conf: %w", err)
		}
	}
	was, err := h.origin()
	if err != nil {
		return Same, fmt.Errorf("read what resolv.conf was: %w", err)
	}
	wanted := h.original().render(w, h.kept(""))
	if isOurs(text) && bytes.Equal(text, wanted) {
		return Same, nil
	}
	if err := replace(h.o.File, wanted, was.Mode.Perm(), &was); err != nil {
		return Same, fmt.Errorf("write the host's resolv.conf: %w", err)
	}
	return outcome, nil
}

// keep remembers resolv.conf as it is. A file that is ours already has been
// kept before; a link to such a one means that somebody linked our file.
func (h *Host) keep(text []byte, link string, absent bool) error {
	if isOurs(text) {
		return fmt.Errorf("%s is a link to a file that weir-agent wrote", h.o.File)
	}
	was := origin{Link: link, Absent: absent, Mode: 0o644}
	if info, err := os.Stat(h.o.File); err == nil {
		was.Mode = info.Mode().Perm()
		if owner, ok := info.Sys().(*syscall.Stat_t); ok {
			was.UID, was.GID = int(owner.Uid), int(owner.Gid)
		}
	}
	if err := replace(h.kept(""), text, was.Mode, nil); err != nil {
		return err
	}
	about, err := json.Marshal(was)
	if err != nil {
		return err
	}
	return replace(h.kept("json"), about, 0o644, nil)
}

func (h *Host) origin() (origin, error) {
	was := origin{Mode: 0o644}
	about, err := os.ReadFile(h.kept("json"))
	if errors.Is(err, fs.ErrNotExist) {
		return was, nil
	}
	if err == nil {
		err = json.Unmarshal(about, &was)
	}
	return was, err
}

// original is what resolv.conf says without us. Where it was a link, whoever
// owns the file behind goes on writing it, with the servers of a new lease.
func (h *Host) original() conf {
	text, err := os.ReadFile(h.o.File)
	if err == nil && !isOurs(text) {
		return parse(text)
	}
	if was, err := h.origin(); err == nil && was.Link != "" {
		target := was.Link
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(h.o.File), target)
		}
		if text, err := os.ReadFile(target); err == nil && len(parse(text).servers) > 0 {
			return parse(text)
		}
	}
	text, _ = os.ReadFile(h.kept(""))
	return parse(text)
}

// restoreFile puts back what was kept, unless somebody else has written since.
func (h *Host) restoreFile() (bool, error) {
	text, err := os.ReadFile(h.o.File)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !isOurs(text) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	was, err := h.origin()
	if err != nil {
		return false, err
	}
	if was.Absent {
		return true, os.Remove(h.o.File)
	}
	if was.Link != "" {
		return true, relink(h.o.File, was.Link)
	}
	text, err = os.ReadFile(h.kept(""))
	if err != nil {
		return false, err
	}
	return true, replace(h.o.File, text, was.Mode.Perm(), &was)
}
