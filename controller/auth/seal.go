package auth

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// SealKey opens the authority's private key: AES-256-GCM. It lies in a file on
// each controller and never in the store, so that a stolen backup signs nothing.
type SealKey [32]byte

// NewSealKey draws a key.
func NewSealKey() SealKey {
	var k SealKey
	_, _ = rand.Read(k[:]) // never fails
	return k
}

// SealKeyOf takes the bytes of a key over.
func SealKeyOf(raw []byte) (SealKey, error) {
	var k SealKey
	if copy(k[:], raw) != len(k) || len(raw) != len(k) {
		return k, fmt.Errorf("take the authority's key over: it has %d bytes, want %d", len(raw), len(k))
	}
	return k, nil
}

// ReadSealKey reads the file that WriteFile wrote. It refuses one that others
// than its owner can read; the error wraps fs.ErrNotExist when there is none.
func ReadSealKey(path string) (SealKey, error) {
	info, err := os.Stat(path)
	if err != nil {
		return SealKey{}, fmt.Errorf("read the authority's key: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return SealKey{}, fmt.Errorf("read the authority's key: others can read %s: chmod 600 it", path)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return SealKey{}, fmt.Errorf("read the authority's key: %w", err)
	}
	raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		return SealKey{}, fmt.Errorf("read the authority's key: %s: %w", path, err)
	}
	return SealKeyOf(raw)
}

// WriteFile writes the key to a new file that its owner alone can read; the
// error wraps fs.ErrExist when there is one.
func (k SealKey) WriteFile(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("write the authority's key: %w", err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write the authority's key: %w", err)
	}
	_, err = f.WriteString(base64.StdEncoding.EncodeToString(k[:]) + "\n")
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write the authority's key: %w", err)
	}
	return nil
}

// EnsureSealKey reads the key, or makes one where there is no file.
func EnsureSealKey(path string) (SealKey, error) {
	k, err := ReadSealKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return k, err
	}
	k = NewSealKey()
	return k, k.WriteFile(path)
}

// derive makes a key for another purpose of it.
func (k SealKey) derive(purpose string) []byte {
	derived, err := hkdf.Key(sha256.New, k[:], nil, purpose, 32)
	if err != nil {
		panic(err) // the length is right
	}
	return derived
}

func (k SealKey) gcm() cipher.AEAD {
	block, err := aes.NewCipher(k[:])
	if err != nil {
		panic(err) // the size is right
	}
	sealer, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err) // of AES it never is
	}
	return sealer
}

// seal binds the secret to what it is for.
func (k SealKey) seal(plain []byte, purpose string) []byte {
	return k.gcm().Seal(nil, nil, plain, []byte(purpose))
}

func (k SealKey) open(sealed []byte, purpose string) ([]byte, error) {
	plain, err := k.gcm().Open(nil, nil, sealed, []byte(purpose))
	if err != nil {
		return nil, errors.New("the key of the file is another than it was sealed with")
	}
	return plain, nil
}
