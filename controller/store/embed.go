package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"
)

// Defaults of an embedded store.
const (
	DefaultQuota    = 2 << 30         // bytes
	maxSocketPath   = 100             // bytes; the kernel's limit is 107
	compactionEvery = "1h"            // history that is kept
	progressEvery   = time.Minute     // so that a quiet watch does not fall behind the compaction
	closeWithin     = 3 * time.Second // of a server that has no quorum to hand over to
)

// EmbedOptions of a store in this process.
type EmbedOptions struct {
	Dir  string // of its own; made when it is not there
	Name string // of this member, unique in the cluster
	// Peer is where the other members reach this one, and Listen where it listens
	// for them: https://address:port, or http:// without PeerTLS.
	Peer, Listen string
	// Cluster are the members to begin with: name=peer URL,… as AddMember tells
	// it. Empty begins a new cluster of this one alone. It is of no use once Dir
	// holds data.
	Cluster string
	PeerTLS *PeerTLS
	// Election is how long without a leader it waits for a new one; 0: 1 s.
	Election time.Duration
	Quota    int64 // bytes; DefaultQuota when 0
	Prefix   string
	Log      *slog.Logger

	snapshotEvery uint64 // entries of the log; 0: etcd's default
}

// PeerTLS names files; certificates are read at each handshake, roots at start.
type PeerTLS struct {
	Certificate, Key, Roots string
	// ServerName and CommonName are what each other's certificates must bear.
	ServerName, CommonName string
}

// SocketPath is where an embedded store listens for clients of this machine:
// for who may read its folder.
func SocketPath(dir string) string { return filepath.Join(dir, "etcd.sock") }

// Exists tells whether there is a store in a folder.
func Exists(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "member", "wal"))
	return err == nil
}

// server is an embedded etcd.
type server struct {
	etcd   *embed.Etcd
	folder string // of the socket, when it had to be elsewhere; removed at the end
	link   string // to that socket
	once   sync.Once
}

// StartEtcd starts a member in this process and waits until it serves, which it
// does when the members have a quorum, or until ctx ends. It listens for
// clients on a unix socket in Dir alone.
func StartEtcd(ctx context.Context, o EmbedOptions) (*Etcd, error) {
	if err := o.complete(); err != nil {
		return nil, fmt.Errorf("start the store: %w", err)
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("start the store: %w", err)
	}
	s := &server{}
	socket, err := s.socket(SocketPath(o.Dir))
	if err != nil {
		return nil, fmt.Errorf("start the store: %w", err)
	}
	config, err := o.config(socket)
	if err != nil {
		s.close()
		return nil, fmt.Errorf("start the store: %w", err)
	}
	if s.etcd, err = embed.StartEtcd(config); err != nil {
		s.close()
		return nil, fmt.Errorf("start the store in %s: %w", o.Dir, err)
	}
	select {
	case <-s.etcd.Server.ReadyNotify():
	case err = <-s.etcd.Err():
	case <-s.etcd.Server.StopNotify():
		err = errors.New("it has stopped: this member may have been removed")
	case <-ctx.Done():
		err = fmt.Errorf("%w: the members have no quorum yet: %w", ErrUnavailable, ctx.Err())
	}
	if err != nil {
		s.close()
		return nil, fmt.Errorf("start the store in %s: %w", o.Dir, err)
	}
	client, err := NewEtcd(ClientOptions{Endpoints: []string{"unix://" + socket}, Prefix: o.Prefix, Log: o.Log})
	if err != nil {
		s.close()
		return nil, err
	}
	client.server, client.quota = s, o.Quota
	client.startMaintenance()
	return client, nil
}

// Stopped is closed when an embedded server has ended by itself, as after the
// removal of its member. It is nil for an etcd elsewhere.
func (s *Etcd) Stopped() <-chan struct{} {
	if s.server == nil {
		return nil
	}
	return s.server.etcd.Server.StopNotify()
}

func (o *EmbedOptions) complete() error {
	switch {
	case o.Dir == "":
		return errors.New("the option Dir is needed")
	case o.Name == "":
		return errors.New("the option Name is needed")
	case o.Peer == "":
		return errors.New("the option Peer is needed")
	case o.Log == nil:
		return errors.New("the option Log is needed")
	}
	if o.Listen == "" {
		o.Listen = o.Peer
	}
	if o.Election == 0 {
		o.Election = time.Second
	}
	if o.Quota == 0 {
		o.Quota = DefaultQuota
	}
	return nil
}

func (o *EmbedOptions) config(socket string) (*embed.Config, error) {
	peer, err := url.Parse(o.Peer)
	if err != nil {
		return nil, fmt.Errorf("read Peer: %w", err)
	}
	listen, err := url.Parse(o.Listen)
	if err != nil {
		return nil, fmt.Errorf("read Listen: %w", err)
	}
	c := embed.NewConfig()
	c.Dir, c.Name = o.Dir, o.Name
	c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{*listen}, []url.URL{*peer}
	c.ListenClientUrls = []url.URL{{Scheme: "unix", Path: socket}}
	c.AdvertiseClientUrls = c.ListenClientUrls
	c.InitialCluster, c.ClusterState = o.Name+"="+o.Peer, embed.ClusterStateFlagNew
	c.InitialClusterToken = "weir"
	if o.Cluster != "" {
		c.InitialCluster, c.ClusterState = o.Cluster, embed.ClusterStateFlagExisting
	}
	if t := o.PeerTLS; t != nil {
		c.PeerTLSInfo = transport.TLSInfo{
			CertFile: t.Certificate, KeyFile: t.Key, TrustedCAFile: t.Roots, ClientCertAuth: true,
			ServerName: t.ServerName, AllowedCNs: []string{t.CommonName},
			// A controller may come from another address than it is reached at.
			SkipClientSANVerify: true, MinVersion: 0x0304,
		}
	}
	c.TickMs, c.ElectionMs = uint(max(o.Election.Milliseconds()/10, 1)), uint(o.Election.Milliseconds())
	c.QuotaBackendBytes = o.Quota
	c.AutoCompactionMode, c.AutoCompactionRetention = embed.CompactorModePeriodic, compactionEvery
	c.WatchProgressNotifyInterval = progressEvery
	if o.snapshotEvery > 0 {
		c.SnapshotCount = o.snapshotEvery
	}
	c.EnableGRPCGateway = false
	c.Metrics = "basic"
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zapTo(o.Log))
	return c, nil
}

// socket finds a path that the kernel takes. A longer one becomes a link to a
// socket in a folder of its own below the folder for temporary files.
func (s *server) socket(path string) (string, error) {
	_ = os.Remove(path) // of a process that was killed
	if len(path) <= maxSocketPath {
		return path, nil
	}
	folder, err := os.MkdirTemp("", "weir-etcd-") // 0700
	if err != nil {
		return "", err
	}
	s.folder, s.link = folder, path
	return filepath.Join(folder, "s"), os.Symlink(filepath.Join(folder, "s"), path)
}

// close ends the server. One that has no quorum is not waited for: nothing is
// lost by that, all it has acknowledged is on disk.
func (s *server) close() { s.once.Do(s.end) }

func (s *server) end() {
	if s.etcd != nil {
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.etcd.Close()
		}()
		select {
		case <-done:
		case <-time.After(closeWithin):
			s.etcd.Server.HardStop()
			<-done
		}
	}
	if s.folder != "" {
		_ = os.Remove(s.link)
		_ = os.RemoveAll(s.folder)
	}
}
