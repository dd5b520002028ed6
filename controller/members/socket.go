package members

import (
	"errors"
	"net"
	"path/filepath"
	"time"

	"github.com/weirproject/weir/controller/store"
)

var errNoSocket = errors.New("no controller runs here")

// socketOf finds the socket of a store that runs in the folder.
func socketOf(dir string) (string, error) {
	path, err := filepath.EvalSymlinks(store.SocketPath(dir)) // a long one is a link
	if err != nil {
		return "", errNoSocket
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err != nil {
		return "", errNoSocket
	}
	return path, c.Close()
}
