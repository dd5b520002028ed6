package client

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/weirproject/weir/api"
)

// The paths of flows and drops. Both answer with one api.FlowLine a line, without
// end: the node looks only while somebody asks. ?from=&to= (several each),
// ?verdict=&vip=&port=&protocol= pick.
const (
	PathFlows = "/v1/flows"
	PathDrops = "/v1/drops"
)

// FlowQuery puts a filter into the form of a request.
func FlowQuery(f api.FlowFilter) url.Values {
	q := url.Values{"from": f.From, "to": f.To}
	for key, value := range map[string]string{"verdict": string(f.Verdict), "vip": f.VIP, "protocol": string(f.Protocol)} {
		if value != "" {
			q.Set(key, value)
		}
	}
	if f.Port != 0 {
		q.Set("port", strconv.Itoa(int(f.Port)))
	}
	return q
}

// FlowFilter reads a filter from a request. The error names the field.
func FlowFilter(q url.Values) (api.FlowFilter, error) {
	f := api.FlowFilter{From: q["from"], To: q["to"], Verdict: api.FlowVerdict(q.Get("verdict")), VIP: q.Get("vip"), Protocol: api.Protocol(q.Get("protocol"))}
	if text := q.Get("port"); text != "" {
		port, err := strconv.ParseUint(text, 10, 16)
		if err != nil {
			return f, fmt.Errorf("port: %q is not between 1 and 65535", text)
		}
		f.Port = uint16(port)
	}
	return f, f.Validate()
}

// Flows tells of each flow from now on, until the context ends or tell gives an
// error, which is returned. The error of a filter is a *Problem with the status 400.
func (c *Client) Flows(ctx context.Context, f api.FlowFilter, tell func(api.FlowLine) error) error {
	return c.follow(ctx, PathFlows, f, tell)
}

// Drops tells of each packet that the kernel throws away, likewise.
func (c *Client) Drops(ctx context.Context, f api.FlowFilter, tell func(api.FlowLine) error) error {
	return c.follow(ctx, PathDrops, f, tell)
}

func (c *Client) follow(ctx context.Context, path string, f api.FlowFilter, tell func(api.FlowLine) error) error {
	patient := &http.Client{Transport: c.http.Transport} // it ends with ctx alone
	response, err := c.open(ctx, patient, FlowQuery(f), path)
	switch {
	case ctx.Err() != nil:
		return nil
	case err != nil:
		return err
	}
	defer response.Body.Close()
	for lines := json.NewDecoder(bufio.NewReader(response.Body)); ; {
		var line api.FlowLine
		switch err := lines.Decode(&line); {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("watch %s: the agent has ended: %w", path, err)
		}
		if err := tell(line); err != nil {
			return err
		}
	}
}
