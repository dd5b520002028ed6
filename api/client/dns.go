package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"github.com/weirproject/weir/api"
)

// The paths of names.
const (
	PathDNSQuery     = "/v1/dns/query"     // ?name=&type=: api.DNSAnswer
	PathDNSCache     = "/v1/dns/cache"     // ?name=&limit=: []api.DNSCacheEntry
	PathDNSExplain   = "/v1/dns/explain"   // ?name=: api.DNSExplanation
	PathDNSTop       = "/v1/dns/top"       // ?limit=: []api.DNSTopName
	PathDNSUpstreams = "/v1/dns/upstreams" // []api.DNSUpstream
	PathDNSTrace     = "/v1/dns/trace"     // ?name=&type=: api.DNSTrace
	PathDNSFlush     = "/v1/dns/flush"     // POST ?name=: api.DNSFlushed
)

// DNSQuery asks the node's proxy for a name and a type such as A or SRV.
func (c *Client) DNSQuery(ctx context.Context, name, recordType string) (api.DNSAnswer, error) {
	return get[api.DNSAnswer](ctx, c, url.Values{"name": {name}, "type": {recordType}}, PathDNSQuery)
}

// DNSCache lists what the proxy keeps: of a name and those below it or, with an
// empty name, of all; at most limit entries.
func (c *Client) DNSCache(ctx context.Context, name string, limit int) ([]api.DNSCacheEntry, error) {
	return get[[]api.DNSCacheEntry](ctx, c, url.Values{"name": {name}, "limit": {strconv.Itoa(limit)}}, PathDNSCache)
}

// DNSExplain tells where the answers to a name come from.
func (c *Client) DNSExplain(ctx context.Context, name string) (api.DNSExplanation, error) {
	return get[api.DNSExplanation](ctx, c, url.Values{"name": {name}}, PathDNSExplain)
}

// DNSTop lists the names that are asked for most, at most limit.
func (c *Client) DNSTop(ctx context.Context, limit int) ([]api.DNSTopName, error) {
	return get[[]api.DNSTopName](ctx, c, url.Values{"limit": {strconv.Itoa(limit)}}, PathDNSTop)
}

// DNSUpstreams lists the servers that the proxy asks.
func (c *Client) DNSUpstreams(ctx context.Context) ([]api.DNSUpstream, error) {
	return get[[]api.DNSUpstream](ctx, c, nil, PathDNSUpstreams)
}

// DNSTrace follows a question's way, and asks every upstream that it may take.
func (c *Client) DNSTrace(ctx context.Context, name, recordType string) (api.DNSTrace, error) {
	return get[api.DNSTrace](ctx, c, url.Values{"name": {name}, "type": {recordType}}, PathDNSTrace)
}

// DNSFlush has the proxy forget a name and those below it or, with an empty
// name, all.
func (c *Client) DNSFlush(ctx context.Context, name string) (api.DNSFlushed, error) {
	return call[api.DNSFlushed](ctx, c, http.MethodPost, url.Values{"name": {name}}, nil, PathDNSFlush)
}
