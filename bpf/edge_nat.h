/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Sends on what nat.h has rewritten: route, TTL, Ethernet. It is in programs of
 * its own, to which the core jumps, for its stack would not fit on the core's.
 */
#pragma once
#include "nat.h"
#include "edge_answer.h"
#include "edge_route.h"

/* v6 and protocol are constants: only so can the verifier follow nat.h. */
static __always_inline struct nat_packet *edge_nat_fill(struct nat_packet *n, const __u8 v6, const __u8 protocol)
{
	n->v6 = v6;
	n->protocol = protocol;
	return n;
}

/* A router's duty. Tells whether the packet may go on. */
static __always_inline int edge_ttl(void *data, void *end, const struct packet *p)
{
	__u64 l3 = packet_l3(p);
	struct wire_ip6 *ip6 = data + l3;
	struct wire_ip4 *ip4 = data + l3;

	if (p->v6) {
		if ((void *)(ip6 + 1) > end || ip6->hops <= 1)
			return 0;
		ip6->hops--;
		return 1;
	}
	if ((void *)(ip4 + 1) > end || ip4->ttl <= 1)
		return 0;
	ip4->check = sum_apply(ip4->check, sum_swap(0, ip4->ttl, ip4->ttl - 1));
	ip4->ttl--;
	return 1;
}

/* Puts the hop's Ethernet header before the IP packet, instead of what is there. */
static __always_inline int edge_forward(void *ctx, const int xdp, const struct packet *p, const struct edge_hop *hop)
{
	const __be16 protocol_be = p->v6 ? bpf_htons(WIRE_ETH_IP6) : bpf_htons(WIRE_ETH_IP4);
	int tag = xdp && hop->vlan_be;
	void *data;

	if (xdp) {
		__u32 ethernet = sizeof(struct wire_ethernet) + (tag ? sizeof(struct packet_tag) : 0), l3 = packet_l3(p);

		if (l3 != ethernet && bpf_xdp_adjust_head(ctx, (int)l3 - (int)ethernet))
			return edge_drop(xdp, EDGE_FRAME, 0);
	} else {
		for (int i = 0; i < PACKET_TAGS && frame_load(ctx, __sk_buff, vlan_present); i++)
			if (bpf_skb_vlan_pop(ctx))
				return edge_drop(xdp, EDGE_FRAME, 0);
	}
	data = frame_data(ctx, xdp);
	if (data + sizeof(struct wire_ethernet) + sizeof(struct packet_tag) > frame_end(ctx, xdp))
		return edge_drop(xdp, EDGE_FRAME, 0);
	if (tag)
		edge_ethernet(data, hop, protocol_be, 1);
	else
		edge_ethernet(data, hop, protocol_be, 0);
	if (!xdp && hop->vlan_be && bpf_skb_vlan_push(ctx, bpf_htons(PACKET_ETH_VLAN), bpf_ntohs(hop->vlan_be)))
		return edge_drop(xdp, EDGE_FRAME, 0);
	return frame_send(ctx, xdp, hop->ifindex);
}

/* Reads which way the frame came. One with two tags is answered by the kernel's
 * routes alone. */
static __always_inline void edge_nat_came(void *ctx, const int xdp, const struct packet *p, struct nat_way *back)
{
	const struct wire_ethernet *eth = frame_data(ctx, xdp);
	const struct packet_tag *tag = (const void *)(eth + 1);
	__u64 l3 = p->l3;

	if ((const void *)(tag + 1) > frame_end(ctx, xdp) || l3 > sizeof(*eth) + sizeof(*tag))
		return;
	if (l3 == sizeof(*eth) + sizeof(*tag))
		back->vlan_be = tag->tag_be & bpf_htons(0x0fff);
	else if (!xdp && frame_load(ctx, __sk_buff, vlan_present))
		back->vlan_be = bpf_htons(frame_load(ctx, __sk_buff, vlan_tci) & 0x0fff);
	__builtin_memcpy(back->dmac, eth->source, 6);
	__builtin_memcpy(back->smac, eth->dest, 6);
	back->ifindex = frame_ifindex(ctx, xdp);
}

static __always_inline enum nat_result edge_nat_forward(void *data, void *end, struct nat_packet *n, const struct packet *p, const struct edge_backend *b)
{
	if (p->v6) {
		if (p->protocol == IPPROTO_TCP)
			return nat_forward(data, end, edge_nat_fill(n, 1, IPPROTO_TCP), &b->addr, b->port_be);
		if (p->protocol == IPPROTO_UDP)
			return nat_forward(data, end, edge_nat_fill(n, 1, IPPROTO_UDP), &b->addr, b->port_be);
		return nat_forward(data, end, edge_nat_fill(n, 1, WIRE_ICMP6), &b->addr, b->port_be);
	}
	if (p->protocol == IPPROTO_TCP)
		return nat_forward(data, end, edge_nat_fill(n, 0, IPPROTO_TCP), &b->addr, b->port_be);
	if (p->protocol == IPPROTO_UDP)
		return nat_forward(data, end, edge_nat_fill(n, 0, IPPROTO_UDP), &b->addr, b->port_be);
	return nat_forward(data, end, edge_nat_fill(n, 0, WIRE_ICMP), &b->addr, b->port_be);
}

static __always_inline enum nat_result edge_nat_back(void *data, void *end, struct nat_packet *n, const struct packet *p)
{
	if (p->v6) {
		if (p->protocol == IPPROTO_TCP)
			return nat_reply(data, end, edge_nat_fill(n, 1, IPPROTO_TCP));
		if (p->protocol == IPPROTO_UDP)
			return nat_reply(data, end, edge_nat_fill(n, 1, IPPROTO_UDP));
		return nat_reply(data, end, edge_nat_fill(n, 1, WIRE_ICMP6));
	}
	if (p->protocol == IPPROTO_TCP)
		return nat_reply(data, end, edge_nat_fill(n, 0, IPPROTO_TCP));
	if (p->protocol == IPPROTO_UDP)
		return nat_reply(data, end, edge_nat_fill(n, 0, IPPROTO_UDP));
	return nat_reply(data, end, edge_nat_fill(n, 0, WIRE_ICMP));
}

/* From the client to the backend. What it works on is in a map, since the stack
 * has no room for it. */
static __always_inline int edge_nat_deliver(void *ctx, const int xdp, struct edge_parcel *parcel)
{
	const struct packet *p = &parcel->packet;
	__u32 backend = parcel->backend, service = parcel->service;
	struct nat_packet n = { .l3 = packet_l3(p), .l4 = packet_l4(p), .skb = xdp ? 0 : ctx };
	const struct edge_backend *b = bpf_map_lookup_elem(&edge_backends, &backend);
	const struct edge_hop *hop;
	void *data, *end;
	int why;

	if (p->kind == PACKET_FRAGMENT || p->first_fragment) {
		nat_drop(NAT_FRAGMENT);
		return edge_drop(xdp, EDGE_NAT_DROPPED, service);
	}
	if (!b)
		return edge_drop(xdp, EDGE_DAMAGED, service);
	hop = bpf_map_lookup_elem(&edge_hops, &b->hop);
	if (!hop)
		return edge_drop(xdp, EDGE_DAMAGED, service);
	if (!b->hop) {
		why = edge_fib(ctx, frame_ifindex(ctx, xdp), &p->src, &b->addr, &parcel->hop);
		if (why)
			return edge_drop(xdp, why, service);
		hop = &parcel->hop;
	}
	data = frame_data(ctx, xdp);
	end = frame_end(ctx, xdp);
	if (frame_wire_length(ctx, xdp, p, data, end) > hop->mtu)
		return answer_too_big(ctx, xdp, p, hop->mtu, service);
	edge_nat_came(ctx, xdp, p, &n.back);
	if (!edge_ttl(data, end, p) || edge_nat_forward(data, end, &n, p, b) != NAT_REWRITTEN)
		return edge_drop(xdp, EDGE_NAT_DROPPED, service);
	edge_delivered_count(service, p->length);
	return edge_forward(ctx, xdp, p, hop);
}

/* Reads where a rewritten answer goes. */
static __always_inline int edge_nat_ends(void *ctx, const int xdp, const struct packet *p, struct address *vip, struct address *client)
{
	void *data = frame_data(ctx, xdp), *end = frame_end(ctx, xdp);
	struct wire_ip6 *ip6 = data + p->l3;
	struct wire_ip4 *ip4 = data + p->l3;

	if (p->v6) {
		if ((void *)(ip6 + 1) > end)
			return 0;
		*vip = ip6->source;
		*client = ip6->dest;
		return 1;
	}
	if ((void *)(ip4 + 1) > end)
		return 0;
	wire_address4(vip, ip4->source_be);
	wire_address4(client, ip4->dest_be);
	return 1;
}

/*
 * From a backend to the client, if it is that. The kernel's routes say where the
 * client is; where they do not, since the interface does not forward or no
 * neighbour is known, the answer goes back the way that the client's packets come.
 */
static __always_inline int edge_nat_reply(void *ctx, const int xdp, const struct packet *p)
{
	struct nat_packet n = { .l3 = p->l3, .l4 = p->l4, .skb = xdp ? 0 : ctx };
	struct edge_hop hop = {};
	struct address vip, client;
	void *data = frame_data(ctx, xdp), *end = frame_end(ctx, xdp);
	enum nat_result result;
	int why;

	if ((p->kind != PACKET_FLOW && p->kind != PACKET_ICMP) || p->first_fragment)
		return FRAME_PASS(xdp);
	result = edge_nat_back(data, end, &n, p);
	if (result == NAT_NOT_OURS)
		return FRAME_PASS(xdp);
	if (result != NAT_REWRITTEN)
		return edge_drop(xdp, EDGE_NAT_DROPPED, 0);
	if (!edge_nat_ends(ctx, xdp, p, &vip, &client))
		return edge_drop(xdp, EDGE_FRAME, 0);
	why = edge_fib(ctx, frame_ifindex(ctx, xdp), &vip, &client, &hop);
	if (why) {
		if (!n.back.ifindex)
			return edge_drop(xdp, why, 0);
		__builtin_memcpy(hop.dmac, n.back.dmac, 6);
		__builtin_memcpy(hop.smac, n.back.smac, 6);
		hop.vlan_be = n.back.vlan_be;
		hop.ifindex = n.back.ifindex;
		hop.mtu = PACKET_LENGTH_MAX;
	}
	data = frame_data(ctx, xdp);
	end = frame_end(ctx, xdp);
	if (frame_wire_length(ctx, xdp, p, data, end) > hop.mtu)
		return edge_drop(xdp, EDGE_TOO_BIG, 0);
	if (!edge_ttl(data, end, p))
		return edge_drop(xdp, EDGE_NAT_DROPPED, 0);
	return edge_forward(ctx, xdp, p, &hop);
}

static __always_inline int edge_nat_out(void *ctx, const int xdp)
{
	__u32 zero = 0;
	struct edge_parcel *parcel = bpf_map_lookup_elem(&edge_parcels, &zero);

	if (!parcel)
		return edge_drop(xdp, EDGE_DAMAGED, 0);
	return edge_nat_deliver(ctx, xdp, parcel);
}

static __always_inline int edge_nat_in(void *ctx, const int xdp)
{
	struct packet p = {};

	if (!frame_pull(ctx, xdp))
		return edge_drop(xdp, EDGE_FRAME, 0);
	packet_read(&p, frame_data(ctx, xdp), frame_end(ctx, xdp), frame_length(ctx, xdp));
	return edge_nat_reply(ctx, xdp, &p);
}
