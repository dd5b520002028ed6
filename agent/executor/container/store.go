package container

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/weirproject/weir/agent/executor/shim"
)

// image is what is kept of an image.
type image struct {
	Reference string
	Digest    string
	// Layers are the digests of their uncompressed content, the lowest first.
	Layers []string
	Config v1.Config
}

// store keeps images: names/ has an image for each reference, layers/ each layer
// once, unpacked.
type store struct {
	dir string

	mu      sync.Mutex // guards what follows
	working map[string]*sync.Mutex
}

func newStore(dir string) *store { return &store{dir: dir, working: map[string]*sync.Mutex{}} }

// lock has one goroutine at a time work on a thing of a name.
func (s *store) lock(what string) func() {
	s.mu.Lock()
	m := s.working[what]
	if m == nil {
		m = &sync.Mutex{}
		s.working[what] = m
	}
	s.mu.Unlock()
	m.Lock()
	return m.Unlock
}

// layerDir has a short name, for all of an image's are in one mount option of a
// page at most.
func (s *store) layerDir(digest string) string {
	_, hash, _ := strings.Cut(digest, ":")
	return filepath.Join(s.dir, "layers", hash[:min(len(hash), 24)])
}

func (s *store) layers(i image) []string {
	dirs := make([]string, len(i.Layers))
	for n, digest := range i.Layers {
		dirs[n] = s.layerDir(digest)
	}
	return dirs
}

// get returns an image that is unpacked. One of a registry is asked for once,
// unless it is to be pulled by force.
func (s *store) get(ctx context.Context, reference string, force bool) (image, error) {
	defer s.lock(reference)()
	sum := sha256.Sum256([]byte(reference))
	kept := filepath.Join(s.dir, "names", hex.EncodeToString(sum[:16])+".json")
	var i image
	if isRemote(reference) && !force && shim.ReadFile(kept, &i) == nil && s.complete(i) {
		return i, nil
	}
	for _, d := range []string{"names", "layers"} {
		if err := os.MkdirAll(filepath.Join(s.dir, d), 0o700); err != nil {
			return i, err
		}
	}
	source, err := open(ctx, reference)
	if err != nil {
		return i, err
	}
	if i, err = s.unpack(ctx, reference, source); err != nil {
		return i, err
	}
	return i, shim.WriteFile(kept, i)
}

func (s *store) complete(i image) bool {
	for _, d := range s.layers(i) {
		if _, err := os.Stat(d); err != nil {
			return false
		}
	}
	return true
}

const (
	layoutPrefix  = "oci:"
	archivePrefix = "docker-archive:"
)

func isRemote(reference string) bool {
	return !strings.HasPrefix(reference, layoutPrefix) && !strings.HasPrefix(reference, archivePrefix)
}

// open finds an image: oci:/path[:tag] is an OCI layout, docker-archive:/path
// what docker save writes, and everything else is in a registry.
func open(ctx context.Context, reference string) (v1.Image, error) {
	if path, ok := strings.CutPrefix(reference, layoutPrefix); ok {
		return openLayout(path)
	}
	if path, ok := strings.CutPrefix(reference, archivePrefix); ok {
		return tarball.ImageFromPath(path, nil)
	}
	ref, err := name.ParseReference(reference)
	if err != nil {
		return nil, err
	}
	return remote.Image(ref, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain), remote.WithPlatform(platform()))
}

func platform() v1.Platform { return v1.Platform{OS: "linux", Architecture: runtime.GOARCH} }

// refName is the annotation that has an image's tag, in a layout's index.
const refName = "org.opencontainers.image.ref.name"

func openLayout(path string) (v1.Image, error) {
	tag := ""
	if at := strings.LastIndexByte(path, ':'); at > strings.LastIndexByte(path, '/') {
		path, tag = path[:at], path[at+1:]
	}
	index, err := layout.ImageIndexFromPath(path)
	if err != nil {
		return nil, err
	}
	return fromIndex(index, tag)
}

// fromIndex picks the image of a tag and of this platform.
func fromIndex(index v1.ImageIndex, tag string) (v1.Image, error) {
	manifest, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	for _, d := range manifest.Manifests {
		if tag != "" && d.Annotations[refName] != tag {
			continue
		}
		if d.Platform != nil && d.Platform.Architecture != "" && !d.Platform.Satisfies(platform()) {
			continue
		}
		if d.MediaType.IsIndex() {
			inner, err := index.ImageIndex(d.Digest)
			if err != nil {
				return nil, err
			}
			return fromIndex(inner, "")
		}
		return index.Image(d.Digest)
	}
	return nil, fmt.Errorf("it has no image %q for %s", tag, platform())
}

// unpack brings every layer that is not there yet.
func (s *store) unpack(ctx context.Context, reference string, source v1.Image) (image, error) {
	i := image{Reference: reference}
	digest, err := source.Digest()
	if err != nil {
		return i, err
	}
	config, err := source.ConfigFile()
	if err != nil {
		return i, err
	}
	if config.Architecture != "" && config.Architecture != runtime.GOARCH {
		return i, fmt.Errorf("it is for %s, and this node is %s", config.Architecture, runtime.GOARCH)
	}
	i.Digest, i.Config = digest.String(), config.Config
	layers, err := source.Layers()
	if err != nil {
		return i, err
	}
	if len(layers) == 0 {
		return i, errors.New("it has no layers")
	}
	for _, l := range layers {
		id, err := l.DiffID()
		if err != nil {
			return i, err
		}
		if err := s.unpackLayer(ctx, id, l); err != nil {
			return i, fmt.Errorf("unpack layer %s: %w", id, err)
		}
		i.Layers = append(i.Layers, id.String())
	}
	return i, nil
}

// unpackLayer unpacks aside, and puts the layer in its place when it is whole
// and is what its digest says.
func (s *store) unpackLayer(ctx context.Context, id v1.Hash, l v1.Layer) error {
	dir := s.layerDir(id.String())
	defer s.lock(dir)()
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	in, err := l.Uncompressed()
	if err != nil {
		return err
	}
	defer in.Close()
	aside := dir + ".part"
	if err := os.RemoveAll(aside); err != nil {
		return err
	}
	if err := os.Mkdir(aside, 0o755); err != nil {
		return err
	}
	err = unpackVerified(ctx, aside, in, id)
	if err == nil {
		err = os.Rename(aside, dir)
	}
	if err != nil {
		os.RemoveAll(aside)
	}
	return err
}
