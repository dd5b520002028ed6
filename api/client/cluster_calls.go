package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/weirproject/weir/api"
)

// Info tells which cluster this is.
func (c *Cluster) Info(ctx context.Context) (api.Cluster, error) {
	return ask[api.Cluster](ctx, c, http.MethodGet, PathCluster, nil, nil, nil)
}

// Objects lists the objects of a kind, or with an empty kind of all.
func (c *Cluster) Objects(ctx context.Context, kind string) (api.ObjectList, error) {
	path := PathObjects
	if kind != "" {
		path += "/" + url.PathEscape(kind)
	}
	return ask[api.ObjectList](ctx, c, http.MethodGet, path, nil, nil, nil)
}

// objectPath keeps the slashes of a key.
func objectPath(kind, key string) string {
	parts := strings.Split(key, "/")
	for i, p := range parts {
		parts[i] = url.PathEscape(p)
	}
	return PathObjects + "/" + url.PathEscape(kind) + "/" + strings.Join(parts, "/")
}

// Object is one object; a *Problem with the status 404 when there is none.
func (c *Cluster) Object(ctx context.Context, kind, key string) (api.Stored, error) {
	return ask[api.Stored](ctx, c, http.MethodGet, objectPath(kind, key), nil, nil, nil)
}

// Put makes or replaces an object that is at a version: 0 means that it is not
// there, nil whatever. The error is a *Problem: 412 for another version, 422 with
// Faults for what cannot be.
func (c *Cluster) Put(ctx context.Context, kind, key string, object json.RawMessage, version *uint64) (api.Stored, error) {
	return ask[api.Stored](ctx, c, http.MethodPut, objectPath(kind, key), nil, ifVersion(version), object)
}

// Delete takes an object away that is at a version; nil: whatever.
func (c *Cluster) Delete(ctx context.Context, kind, key string, version *uint64) error {
	_, err := ask[struct{}](ctx, c, http.MethodDelete, objectPath(kind, key), nil, ifVersion(version), nil)
	return err
}

// Apply makes many objects so, all or none.
func (c *Cluster) Apply(ctx context.Context, a api.Apply) (api.Applied, error) {
	return ask[api.Applied](ctx, c, http.MethodPost, PathApply, nil, nil, a)
}

// Watch gives each change of the objects of a kind (empty: of all) after a
// revision to take, until that returns an error, the stream ends, or ctx. With
// the revision 0 all that is there comes first, and then a sync. The error is a
// *Problem with the status 410 where the revision is no longer kept.
func (c *Cluster) Watch(ctx context.Context, kind string, after uint64, take func(api.WatchEvent) error) error {
	query := url.Values{}
	if kind != "" {
		query.Set("kind", kind)
	}
	if after > 0 {
		query.Set("after", strconv.FormatUint(after, 10))
	}
	response, err := c.do(ctx, http.MethodGet, PathWatch, query, nil, nil)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	for d := json.NewDecoder(response.Body); ; {
		var e api.WatchEvent
		if err := d.Decode(&e); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read the watch: %w", err)
		}
		if e.Type == "heartbeat" {
			continue
		}
		if err := take(e); err != nil {
			return err
		}
	}
}

// Nodes lists the nodes with what they have applied.
func (c *Cluster) Nodes(ctx context.Context) (api.NodeList, error) {
	return ask[api.NodeList](ctx, c, http.MethodGet, PathNodes, nil, nil, nil)
}

// Node is one node.
func (c *Cluster) Node(ctx context.Context, name string) (api.NodeState, error) {
	return ask[api.NodeState](ctx, c, http.MethodGet, PathNodes+"/"+url.PathEscape(name), nil, nil, nil)
}

// RemoveNode takes a node out of the cluster: its certificate is refused.
func (c *Cluster) RemoveNode(ctx context.Context, name string) error {
	_, err := ask[struct{}](ctx, c, http.MethodDelete, PathNodes+"/"+url.PathEscape(name), nil, nil, nil)
	return err
}

// DrainNode drains a node, or ends that.
func (c *Cluster) DrainNode(ctx context.Context, name string, draining bool) error {
	_, err := ask[api.Stored](ctx, c, http.MethodPut, PathNodes+"/"+url.PathEscape(name)+"/draining", nil, nil, api.NodeDrain{Draining: draining})
	return err
}

// Tokens lists the tokens that still let somebody in.
func (c *Cluster) Tokens(ctx context.Context) ([]api.Token, error) {
	return ask[[]api.Token](ctx, c, http.MethodGet, PathTokens, nil, nil, nil)
}

// CreateToken makes a token; the answer alone has its secret.
func (c *Cluster) CreateToken(ctx context.Context, r api.TokenRequest) (api.Token, error) {
	return ask[api.Token](ctx, c, http.MethodPost, PathTokens, nil, nil, r)
}

// DeleteToken takes a token back.
func (c *Cluster) DeleteToken(ctx context.Context, id string) error {
	_, err := ask[struct{}](ctx, c, http.MethodDelete, PathTokens+"/"+url.PathEscape(id), nil, nil, nil)
	return err
}

// Controllers lists the controllers.
func (c *Cluster) Controllers(ctx context.Context) ([]api.Controller, error) {
	return ask[[]api.Controller](ctx, c, http.MethodGet, PathControllers, nil, nil, nil)
}

// RemoveController takes a controller out, unless that costs the quorum: a
// *Problem with the status 409.
func (c *Cluster) RemoveController(ctx context.Context, name string) error {
	_, err := ask[struct{}](ctx, c, http.MethodDelete, PathControllers+"/"+url.PathEscape(name), nil, nil, nil)
	return err
}

// Backup writes a snapshot of the store.
func (c *Cluster) Backup(ctx context.Context, w io.Writer) error {
	response, err := c.do(ctx, http.MethodGet, PathBackup, nil, nil, nil)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if _, err := io.Copy(w, response.Body); err != nil {
		return fmt.Errorf("read the backup: %w", err)
	}
	return nil
}

// Audit lists what was done and refused, the newest first, at most limit.
func (c *Cluster) Audit(ctx context.Context, limit int) ([]api.AuditRecord, error) {
	return ask[[]api.AuditRecord](ctx, c, http.MethodGet, PathAudit, url.Values{"limit": {strconv.Itoa(limit)}}, nil, nil)
}
