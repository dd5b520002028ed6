package client

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/weirproject/weir/api"
)

// The paths of the zones.
const (
	PathZones         = "/v1/zones"          // api.ZonesStatus
	PathZonesExplain  = "/v1/zones/explain"  // ?from=&to=&port=&via=: api.ZoneExplained
	PathZonesMatrix   = "/v1/zones/matrix"   // ?format=: text, dot, svg, html or json
	PathZonesDrops    = "/v1/zones/drops"    // []api.ZoneDrop; ?follow=1: one JSON object a line, without end
	PathZonesHistory  = "/v1/zones/history"  // []api.ZoneChange, the newest first
	PathZonesCheck    = "/v1/zones/check"    // POST api.ZonePolicyFile: []api.ZoneFinding
	PathZonesDiff     = "/v1/zones/diff"     // POST api.ZonePolicyFile: api.ZoneDiff
	PathZonesApply    = "/v1/zones/apply"    // POST api.ZoneApply: api.ZoneApplied
	PathZonesConfirm  = "/v1/zones/confirm"  // POST: api.ZoneChange
	PathZonesRollback = "/v1/zones/rollback" // POST api.ZoneRollback: api.ZoneApplied
)

// Zones tells what the node enforces.
func (c *Client) Zones(ctx context.Context) (api.ZonesStatus, error) {
	return get[api.ZonesStatus](ctx, c, nil, PathZones)
}

// ZoneExplain asks for the policy's verdict on a flow, to a port such as tcp/80,
// that the node or zone via passes on; empty: it goes straight.
func (c *Client) ZoneExplain(ctx context.Context, from, to, port, via string) (api.ZoneExplained, error) {
	return get[api.ZoneExplained](ctx, c, url.Values{"from": {from}, "to": {to}, "port": {port}, "via": {via}}, PathZonesExplain)
}

// ZoneCheck lists what is wrong with a policy's file, and what is hardly meant.
func (c *Client) ZoneCheck(ctx context.Context, f api.ZonePolicyFile) ([]api.ZoneFinding, error) {
	return call[[]api.ZoneFinding](ctx, c, http.MethodPost, nil, f, PathZonesCheck)
}

// ZoneDiff tells which flows a policy's file would open and close.
func (c *Client) ZoneDiff(ctx context.Context, f api.ZonePolicyFile) (api.ZoneDiff, error) {
	return call[api.ZoneDiff](ctx, c, http.MethodPost, nil, f, PathZonesDiff)
}

// ZoneApply enforces a policy. The error is a *Problem with the status 422 for a
// policy with faults, 409 for one that cuts somebody off or cannot be applied now.
func (c *Client) ZoneApply(ctx context.Context, a api.ZoneApply) (api.ZoneApplied, error) {
	return call[api.ZoneApplied](ctx, c, http.MethodPost, nil, a, PathZonesApply)
}

// ZoneConfirm keeps the policy that waits for it.
func (c *Client) ZoneConfirm(ctx context.Context) (api.ZoneChange, error) {
	return call[api.ZoneChange](ctx, c, http.MethodPost, nil, nil, PathZonesConfirm)
}

// ZoneHistory lists the policies that were in force, the newest first.
func (c *Client) ZoneHistory(ctx context.Context) ([]api.ZoneChange, error) {
	return get[[]api.ZoneChange](ctx, c, nil, PathZonesHistory)
}

// ZoneRollback enforces a policy of the history; with the id 0 it takes back the
// one that waits to be confirmed.
func (c *Client) ZoneRollback(ctx context.Context, r api.ZoneRollback) (api.ZoneApplied, error) {
	return call[api.ZoneApplied](ctx, c, http.MethodPost, nil, r, PathZonesRollback)
}

// ZoneMatrix draws what is open between the zones, as text, dot, svg, html or
// json.
func (c *Client) ZoneMatrix(ctx context.Context, format string) ([]byte, error) {
	response, err := c.open(ctx, c.http, url.Values{"format": {format}}, PathZonesMatrix)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("read the agent's answer to %s: %w", PathZonesMatrix, err)
	}
	return text, nil
}

// ZoneDrops lists the last packets that the zones have dropped or reported.
func (c *Client) ZoneDrops(ctx context.Context) ([]api.ZoneDrop, error) {
	return get[[]api.ZoneDrop](ctx, c, nil, PathZonesDrops)
}

// FollowZoneDrops tells of each packet from now on, until the context ends or
// tell gives an error, which is returned.
func (c *Client) FollowZoneDrops(ctx context.Context, tell func(api.ZoneDrop) error) error {
	patient := &http.Client{Transport: c.http.Transport} // it ends with ctx alone
	response, err := c.open(ctx, patient, url.Values{"follow": {strconv.Itoa(1)}}, PathZonesDrops)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	for lines := json.NewDecoder(bufio.NewReader(response.Body)); ; {
		var d api.ZoneDrop
		switch err := lines.Decode(&d); {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("follow the drops: the agent has ended: %w", err)
		}
		if err := tell(d); err != nil {
			return err
		}
	}
}

// open asks for what is no JSON value.
func (c *Client) open(ctx context.Context, with *http.Client, query url.Values, path string) (*http.Response, error) {
	u := c.base.JoinPath(path)
	u.RawQuery = query.Encode()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("ask the agent for %s: %w", path, err)
	}
	response, err := with.Do(request)
	if err != nil {
		return nil, c.explain(err)
	}
	if response.StatusCode != http.StatusOK {
		defer response.Body.Close()
		return nil, problemOf(response)
	}
	return response, nil
}
