package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/api/client"
)

func add(args *skel.CmdArgs) error {
	c, err := read(args.StdinData)
	if err != nil {
		return err
	}
	agent, err := c.client()
	if err != nil {
		return err
	}
	r, err := c.request(args)
	if err != nil {
		return err
	}
	made, err := agent.Attach(context.Background(), r)
	if err != nil {
		return told("attach the container to network "+c.Network, err)
	}
	result, err := c.result(args, made)
	if err != nil {
		return err
	}
	return types.PrintResult(result, c.CNIVersion)
}

// del succeeds for what is not attached any more: runtimes repeat it.
func del(args *skel.CmdArgs) error {
	c, err := read(args.StdinData)
	if err != nil {
		return err
	}
	agent, err := c.client()
	if err != nil {
		return err
	}
	return told("detach the container", agent.Detach(context.Background(), args.ContainerID, args.IfName))
}

func check(args *skel.CmdArgs) error {
	c, err := read(args.StdinData)
	if err != nil {
		return err
	}
	agent, err := c.client()
	if err != nil {
		return err
	}
	held, err := agent.CheckAttachment(context.Background(), args.ContainerID, args.IfName)
	if err != nil {
		return told("check the container", err)
	}
	previous, err := c.previous()
	if err != nil || previous == nil {
		return err
	}
	var lost []netip.Addr
	for _, a := range held.Addresses() {
		if !slices.ContainsFunc(previous.IPs, func(ip *ipConfig) bool { return ip.Address.IP.Equal(a.AsSlice()) }) {
			lost = append(lost, a)
		}
	}
	if len(lost) > 0 {
		return types.NewError(types.ErrUnknownContainer, fmt.Sprintf("the container has addresses that prevResult does not have: %v", lost), "")
	}
	return nil
}

func gc(args *skel.CmdArgs) error {
	c, err := read(args.StdinData)
	if err != nil {
		return err
	}
	agent, err := c.client()
	if err != nil {
		return err
	}
	var alive []api.AttachRequest
	for _, one := range c.ValidAttachments {
		alive = append(alive, api.AttachRequest{Container: one.ContainerID, Interface: one.IfName})
	}
	_, err = agent.KeepAttachments(context.Background(), c.Name, alive)
	return told("take dead containers out of their networks", err)
}

// status tells whether a container could be attached now.
func status(args *skel.CmdArgs) error {
	c, err := read(args.StdinData)
	if err != nil {
		return err
	}
	agent, err := c.client()
	if err != nil {
		return err
	}
	all, err := agent.Networks(context.Background())
	if err != nil {
		return types.NewError(types.ErrPluginNotAvailable, "the node's agent does not answer", err.Error())
	}
	if !slices.ContainsFunc(all, func(n api.NetworkStatus) bool { return n.Name == c.Network }) {
		return types.NewError(types.ErrPluginNotAvailable, fmt.Sprintf("this node has no part of network %s", c.Network), "")
	}
	return nil
}

// told turns the agent's answer into an error of CNI; nil stays nil.
func told(what string, err error) error {
	if err == nil {
		return nil
	}
	code := uint(types.ErrInternal)
	var problem *client.Problem
	switch {
	case !errors.As(err, &problem):
		code = types.ErrTryAgainLater // nobody answers
	case problem.Status == http.StatusServiceUnavailable || problem.Status == http.StatusInsufficientStorage:
		code = types.ErrTryAgainLater
	case problem.Status == http.StatusNotFound && what == "check the container":
		code = types.ErrUnknownContainer
	case problem.Status == http.StatusNotFound || problem.Status == http.StatusBadRequest:
		code = types.ErrInvalidNetworkConfig
	}
	return types.NewError(code, "cannot "+what, err.Error())
}
