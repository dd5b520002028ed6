package client

import (
	"context"
	"net/http"
	"net/url"

	"github.com/weirproject/weir/api"
)

// The paths of the networks of containers.
const (
	PathNetworks    = "/v1/networks"    // []api.NetworkStatus
	PathAttachments = "/v1/attachments" // []api.Attachment; POST api.AttachRequest: api.Attached
	// PathAttachment is one of another orchestrator's: GET compares it with the
	// kernel, DELETE takes it out of its network; ?container=&interface=.
	PathAttachment = "/v1/attachment"
	// PathAttachmentsKeep is told by POST which are alive: []api.AttachRequest with
	// container and interface; the configuration's others are taken out. ?config=.
	PathAttachmentsKeep = "/v1/attachments/keep"
)

// Networks lists the networks of containers on the node.
func (c *Client) Networks(ctx context.Context) ([]api.NetworkStatus, error) {
	return get[[]api.NetworkStatus](ctx, c, nil, PathNetworks)
}

// Attachments lists the containers in networks.
func (c *Client) Attachments(ctx context.Context) ([]api.Attachment, error) {
	return get[[]api.Attachment](ctx, c, nil, PathAttachments)
}

// Attach attaches a container to a network. The error is a *Problem with the
// status 404 for an unknown network, 507 when no address is left, 503 while the
// node has no snapshot, 409 when something that is asked for is taken.
func (c *Client) Attach(ctx context.Context, r api.AttachRequest) (api.Attached, error) {
	return call[api.Attached](ctx, c, http.MethodPost, nil, r, PathAttachments)
}

// CheckAttachment compares an attachment with the kernel; the error is a *Problem
// with the status 404 when there is none, 409 when it is not as it was made.
func (c *Client) CheckAttachment(ctx context.Context, container, iface string) (api.Attached, error) {
	return get[api.Attached](ctx, c, url.Values{"container": {container}, "interface": {iface}}, PathAttachment)
}

// Detach takes a container out of a network; it may have been in none.
func (c *Client) Detach(ctx context.Context, container, iface string) error {
	_, err := call[struct{}](ctx, c, http.MethodDelete, url.Values{"container": {container}, "interface": {iface}}, nil, PathAttachment)
	return err
}

// KeepAttachments takes all containers that came by a configuration of another
// orchestrator out of their networks but these, of which Container and Interface
// count. It lists what it took out.
func (c *Client) KeepAttachments(ctx context.Context, config string, alive []api.AttachRequest) ([]string, error) {
	return call[[]string](ctx, c, http.MethodPost, url.Values{"config": {config}}, alive, PathAttachmentsKeep)
}
