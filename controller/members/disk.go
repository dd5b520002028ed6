package members

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/weirproject/weir/controller/auth"
)

// keptController is controller.json: who this controller is.
type keptController struct {
	ID        string `json:"id"`
	Name      string `json:"name"`
	ClusterID string `json:"cluster_id"`
	// Cluster is what the store's member must be started with the first time.
	Cluster string `json:"cluster,omitempty"`
	// First began the cluster.
	First bool `json:"first,omitempty"`
}

// ErrNotInitialised is of a data folder that neither Init nor Join has filled.
var ErrNotInitialised = errors.New("this is no controller yet: run weir-controller init, or join")

func (o *Options) path(name string) string { return filepath.Join(o.DataDir, name) }

// read returns what is kept, or ErrNotInitialised. The name is for ever.
func (o *Options) read() (keptController, error) {
	var kept keptController
	text, err := os.ReadFile(o.path("controller.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return kept, fmt.Errorf("%s: %w", o.DataDir, ErrNotInitialised)
	}
	if err == nil {
		err = json.Unmarshal(text, &kept)
	}
	if err != nil {
		return kept, fmt.Errorf("read controller.json: %w", err)
	}
	if kept.Name != o.Name {
		return kept, fmt.Errorf("name: this controller is %s and cannot become %s: remove it and join anew", kept.Name, o.Name)
	}
	return kept, nil
}

func (o *Options) write(kept keptController) error {
	text, err := json.MarshalIndent(kept, "", "  ")
	if err != nil {
		return err
	}
	return o.save("controller.json", append(text, '\n'))
}

// save writes a file whole, for its owner alone.
func (o *Options) save(name string, text []byte) error {
	if err := os.MkdirAll(o.DataDir, 0o700); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	part := o.path("." + name + ".part")
	f, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	_, err = f.Write(text)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := os.Rename(part, o.path(name)); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

// authority.json is a copy of what the store keeps: the store's members need
// certificates before there is a store.
const authorityFile = "authority.json"

func (o *Options) openAuthority(key auth.SealKey) (*auth.Authority, error) {
	sealed, err := os.ReadFile(o.path(authorityFile))
	if err != nil {
		return nil, fmt.Errorf("open the certificate authority: %w", err)
	}
	return auth.OpenAuthority(sealed, key, o.Now)
}

func (o *Options) saveAuthority(a *auth.Authority) error {
	sealed, err := a.Sealed()
	if err != nil {
		return err
	}
	return o.save(authorityFile, sealed)
}

// writeCertificates puts the certificate where the store's member reads it, at
// each handshake.
func (o *Options) writeCertificates(a *auth.Authority) error {
	certificate, key, roots, _, err := a.Files()
	if err != nil {
		return err
	}
	// One after the other: a handshake in between fails and is tried again.
	return errors.Join(o.save("peer.key", key), o.save("peer.pem", certificate), o.save("ca.pem", roots))
}

// newID is a UUID of version 7 (RFC 9562): it begins with the time.
func newID(now time.Time) string {
	var raw [16]byte
	_, _ = rand.Read(raw[:]) // never fails
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(now.UnixMilli()))
	copy(raw[:6], ms[2:])
	raw[6], raw[8] = raw[6]&0x0f|0x70, raw[8]&0x3f|0x80
	text := hex.EncodeToString(raw[:])
	return text[:8] + "-" + text[8:12] + "-" + text[12:16] + "-" + text[16:20] + "-" + text[20:]
}
