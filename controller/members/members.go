// Package members makes a process a controller: it begins a cluster, joins one,
// opens what a controller keeps on disk and in the store, and looks after who
// the controllers are. It serves no HTTP and knows nothing of services.
package members

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/weirproject/weir/api/trust"
	"github.com/weirproject/weir/controller/auth"
	"github.com/weirproject/weir/controller/store"
	"github.com/weirproject/weir/version"
)

// Defaults of Options.
const (
	DefaultDataDir = "/var/lib/weir/controller"
	DefaultPort    = "8443"
	DefaultPeer    = "2380"
)

// readyWithin is how long a controller that has just joined may take to catch up.
const readyWithin = 2 * time.Minute

// Options of a controller's membership.
type Options struct {
	DataDir string // DefaultDataDir when empty
	Name    string // unique among the controllers; the host's when empty
	// URL is where nodes, people and other controllers reach its API:
	// https://address:port.
	URL string
	// Peer is where the other controllers' stores reach this one's, and
	// PeerListen where it listens for them: https://address:port. Neither is of
	// use with Endpoints.
	Peer, PeerListen string
	// Hosts are more addresses and names for its certificate.
	Hosts []string
	// CAKeyFile opens the certificate authority; ca.key in DataDir when empty.
	CAKeyFile string
	// Endpoints of an etcd that runs elsewhere; empty: one in this process.
	Endpoints              []string
	EndpointTLS            *tls.Config
	EtcdUser, EtcdPassword string
	Election               time.Duration // of the store; 0: its default
	Log                    *slog.Logger
	Now                    func() time.Time // time.Now when nil
}

func (o *Options) complete() error {
	if o.DataDir == "" {
		o.DataDir = DefaultDataDir
	}
	if o.Name == "" {
		host, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("name: %w", err)
		}
		o.Name, _, _ = strings.Cut(host, ".")
	}
	if o.CAKeyFile == "" {
		o.CAKeyFile = o.path("ca.key")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		return errors.New("log: is missing")
	}
	if _, err := hostOf("url", o.URL); err != nil {
		return err
	}
	if len(o.Endpoints) > 0 {
		o.Peer, o.PeerListen = "", ""
		return nil
	}
	if o.PeerListen == "" {
		o.PeerListen = o.Peer
	}
	if _, err := hostOf("peer", o.Peer); err != nil {
		return err
	}
	_, err := hostOf("peer-listen", o.PeerListen)
	return err
}

// hostOf is the host of a URL that must be https://host:port.
func hostOf(field, text string) (string, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.Port() == "" || strings.Trim(u.Path, "/") != "" {
		return "", fmt.Errorf("%s: %q is not https://address:port", field, text)
	}
	return u.Hostname(), nil
}

// hosts are all by which the controller is reached.
func (o *Options) hosts() []string {
	all := append([]string{"localhost", "127.0.0.1", "::1"}, o.Hosts...)
	for _, one := range []string{o.URL, o.Peer} {
		if u, err := url.Parse(one); err == nil && u.Hostname() != "" {
			all = append(all, u.Hostname())
		}
	}
	return all
}

// Member is this process as one of the controllers. Its parts are for the
// server to use.
type Member struct {
	Store     store.Store
	Authority *auth.Authority
	Door      *auth.Door
	Audit     *auth.Audit
	ID, Name  string
	ClusterID string
	// Epoch names the history that the store's revisions belong to; a restore
	// from a backup makes a new one.
	Epoch string

	options Options
	etcd    *store.Etcd // nil for a store in memory
	key     auth.SealKey
	renewal time.Time // of the certificate on disk; of renew alone
}

// record of the cluster, in the store.
type record struct {
	ID      string    `json:"id"`
	Epoch   string    `json:"epoch"`
	Created time.Time `json:"created"`
}

// Where the store keeps the cluster and its controllers.
const (
	clusterKey       = "cluster"
	controllerPrefix = "controllers/" // id: api.Controller
)

// Open starts what Init or Join has made: the store, the authority and the
// door. It returns when the store answers; ctx limits that.
func Open(ctx context.Context, o Options) (*Member, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	kept, err := o.read()
	if err != nil {
		return nil, err
	}
	m := &Member{ID: kept.ID, Name: kept.Name, ClusterID: kept.ClusterID, options: o}
	if m.key, err = auth.ReadSealKey(o.CAKeyFile); err != nil {
		return nil, err
	}
	if m.Authority, err = o.openAuthority(m.key); err != nil {
		return nil, err
	}
	m.Authority.Serve(m.ID, o.hosts())
	if err := o.writeCertificates(m.Authority); err != nil {
		return nil, err
	}
	if err := m.startStore(ctx, kept); err != nil {
		return nil, err
	}
	if err := m.settle(ctx, kept.First); err != nil {
		_ = m.Close()
		return nil, err
	}
	return m, nil
}

// OpenInMemory makes a controller whose all is gone with the process: for a
// trial, and for tests.
func OpenInMemory(ctx context.Context, o Options) (*Member, error) {
	o.Endpoints = []string{"memory"} // no peers
	if err := o.complete(); err != nil {
		return nil, err
	}
	m := &Member{Store: store.NewMem(), ID: newID(o.Now()), Name: o.Name, ClusterID: newID(o.Now()), key: auth.NewSealKey(), options: o}
	var err error
	if m.Authority, err = auth.NewAuthority(m.ClusterID, m.key, o.Now); err != nil {
		return nil, err
	}
	m.Authority.Serve(m.ID, o.hosts())
	return m, m.settle(ctx, true)
}

func (m *Member) startStore(ctx context.Context, kept keptController) (err error) {
	o := m.options
	if len(o.Endpoints) > 0 {
		m.etcd, err = store.NewEtcd(store.ClientOptions{
			Endpoints: o.Endpoints, TLS: o.EndpointTLS, Username: o.EtcdUser, Password: o.EtcdPassword, Log: o.Log,
		})
	} else {
		m.etcd, err = store.StartEtcd(ctx, store.EmbedOptions{
			Dir: o.path("etcd"), Name: o.Name, Peer: o.Peer, Listen: o.PeerListen, Cluster: kept.Cluster, Election: o.Election, Log: o.Log,
			PeerTLS: &store.PeerTLS{
				Certificate: o.path("peer.pem"), Key: o.path("peer.key"), Roots: o.path("ca.pem"),
				ServerName: trust.ServerName, CommonName: auth.ControllerName,
			},
		})
	}
	if err == nil {
		m.Store = m.etcd
	}
	return err
}

// settle reads, or first writes, what is kept of the cluster, and takes this
// controller's place in it.
func (m *Member) settle(ctx context.Context, first bool) error {
	if err := m.awaitStore(ctx); err != nil {
		return err
	}
	if first {
		if err := m.found(ctx); err != nil {
			return err
		}
	}
	e, err := m.Store.Get(ctx, clusterKey)
	if err != nil {
		return fmt.Errorf("read the cluster: %w", err)
	}
	var r record
	if err := json.Unmarshal(e.Value, &r); err != nil {
		return fmt.Errorf("read the cluster: %w", err)
	}
	if r.ID != m.ClusterID {
		return fmt.Errorf("the store is of the cluster %s, this controller of %s", r.ID, m.ClusterID)
	}
	m.Epoch = r.Epoch
	if err := m.Authority.Refresh(ctx, m.Store); err != nil {
		return err
	}
	door, err := auth.NewDoor(auth.Options{Store: m.Store, Authority: m.Authority, Log: m.options.Log, Now: m.options.Now})
	if err != nil {
		return err
	}
	m.Door, m.Audit = door, auth.NewAudit(m.Store, m.options.Log, m.options.Now)
	if err := m.keepPeer(ctx); err != nil {
		return err
	}
	if err := door.Adopt(ctx, m.ID, m.Name); err != nil {
		return fmt.Errorf("take the place of %s: %w", m.Name, err)
	}
	return m.register(ctx)
}

// awaitStore waits until the store answers: a member that has just joined has
// to catch up.
func (m *Member) awaitStore(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	for {
		_, err := m.Store.Get(ctx, clusterKey)
		if err == nil || errors.Is(err, store.ErrNotFound) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the store: %w", err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// found writes the cluster and its authority, if they are not there.
func (m *Member) found(ctx context.Context) error {
	sealed, err := m.Authority.Sealed()
	if err != nil {
		return err
	}
	value, err := json.Marshal(record{ID: m.ClusterID, Epoch: newID(m.options.Now()), Created: m.options.Now()})
	if err != nil {
		return err
	}
	_, err = m.Store.Commit(ctx, []store.Condition{{Key: clusterKey}, {Key: auth.AuthorityKey}},
		[]store.Op{{Key: clusterKey, Value: value}, {Key: auth.AuthorityKey, Value: sealed}})
	if err != nil && !errors.Is(err, store.ErrConflict) { // it is there
		return fmt.Errorf("begin the cluster: %w", err)
	}
	return nil
}

// keepPeer tells the other members where this one is now.
func (m *Member) keepPeer(ctx context.Context) error {
	if m.etcd == nil || m.options.Peer == "" {
		return nil
	}
	return m.etcd.SetPeer(ctx, m.options.Name, m.options.Peer)
}

// Stopped is closed when this process's store has ended by itself, as when the
// controller was removed.
func (m *Member) Stopped() <-chan struct{} {
	if m.etcd == nil {
		return nil
	}
	return m.etcd.Stopped()
}

// Close ends the store.
func (m *Member) Close() error { return m.Store.Close() }

// versionText is what this controller runs.
func versionText() string { return version.String() }
