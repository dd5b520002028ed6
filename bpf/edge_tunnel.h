/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Tunnels: GUE to the node of a backend (dataplane/edge.go has its format), or
 * plain IP in IP. What is inside stays as the client sent it.
 */
#pragma once
#include "edge_answer.h"
#include "edge_route.h"

enum {
	TUNNEL_TTL = 64,
	TUNNEL_GUE_PORT = 6080,
};

/* Behind the UDP header. */
struct tunnel_gue {
	__u8 words; /* of 4 bytes, after these 4 */
	__u8 protocol;
	__be16 flags_be;
	__be16 port_be; /* the backend's; then its address, of 4 or 16 bytes */
	__u16 pad;
};

static __always_inline __u32 tunnel_gue_size(int v6)
{
	return sizeof(struct wire_udp) + sizeof(struct tunnel_gue) + (v6 ? 16 : 4);
}

/* Of all headers but Ethernet. */
static __always_inline __u32 tunnel_size(int v6, int outer6, int gue)
{
	return (outer6 ? sizeof(struct wire_ip6) : sizeof(struct wire_ip4)) + (gue ? tunnel_gue_size(v6) : 0);
}

static __always_inline void tunnel_ip4(struct wire_ip4 *ip, __u32 length, __u8 class, __u8 protocol, __be32 src_be, __be32 dst_be)
{
	__u32 *w = (__u32 *)ip;
	__u64 sum;

	/* Version, class and length; no id is needed where DF is set (RFC 6864). */
	w[0] = 0x45 | (__u32)class << 8 | (__u32)bpf_htons(length) << 16;
	w[1] = (__u32)bpf_htons(PACKET_IP4_DONT_FRAGMENT) << 16;
	w[2] = TUNNEL_TTL | (__u32)protocol << 8;
	w[3] = src_be;
	w[4] = dst_be;
	sum = (__u64)w[0] + w[1] + w[2] + src_be + dst_be;
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	ip->check = ~sum;
}

static __always_inline void tunnel_ip6(struct wire_ip6 *ip, __u32 length, __u8 class, __u8 protocol, __u64 hash, const struct address *src, const struct address *dst)
{
	/* The flow label spreads over paths (RFC 6438); bits that the port
	 * does not use. */
	*(__u32 *)ip = bpf_htonl(6U << 28 | (__u32)class << 20 | (__u32)(hash >> 12 & 0xfffff));
	ip->length_be = bpf_htons(length);
	ip->protocol = protocol;
	ip->hops = TUNNEL_TTL;
	ip->source = *src;
	ip->dest = *dst;
}

/*
 * Writes the headers at data, where there is room for them. The UDP checksum is
 * left out: what is inside has its own, and so does IPv4; for IPv6 RFC 6935
 * allows it.
 */
static __always_inline void tunnel_write(void *at, const struct packet *p, const struct edge_backend *b, const struct edge_source *source, __u64 hash, const int v6, const int outer6, const int gue)
{
	__u32 inside = p->length + (gue ? tunnel_gue_size(v6) : 0);
	__u8 carried = v6 ? WIRE_IP6_IN_IP : WIRE_IP_IN_IP, protocol = gue ? IPPROTO_UDP : carried;

	if (outer6) {
		tunnel_ip6(at, inside, p->class, protocol, hash, &source->v6, &b->node);
		at += sizeof(struct wire_ip6);
	} else {
		tunnel_ip4(at, sizeof(struct wire_ip4) + inside, p->class, protocol, source->v4.word_be[3], b->node.word_be[3]);
		at += sizeof(struct wire_ip4);
	}
	if (gue) {
		struct wire_udp *udp = at;
		struct tunnel_gue *g = at + sizeof(*udp);

		udp->source_be = hash | 0xc0;
		udp->dest_be = bpf_htons(TUNNEL_GUE_PORT);
		udp->length_be = bpf_htons(inside);
		udp->check = 0;
		g->words = v6 ? 5 : 2;
		g->protocol = carried;
		g->flags_be = 0;
		g->port_be = b->port_be;
		g->pad = 0;
		if (v6)
			*(struct address *)(g + 1) = b->addr;
		else
			*(__be32 *)(g + 1) = b->addr.word_be[3];
	}
}

/* Makes room for the tunnel's headers behind those of Ethernet, whose tags go.
 * Data begins with Ethernet of the given length then. */
static __always_inline int tunnel_room(void *ctx, const int xdp, const struct packet *p, __u32 ethernet, const int outer6, const int gue, __u32 size)
{
	__u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO;

	if (xdp)
		return !bpf_xdp_adjust_head(ctx, (int)p->l3 - (int)(ethernet + size));
	for (int i = 0; i < PACKET_TAGS && frame_load(ctx, __sk_buff, vlan_present); i++)
		if (bpf_skb_vlan_pop(ctx))
			return 0;
	flags |= outer6 ? BPF_F_ADJ_ROOM_ENCAP_L3_IPV6 : BPF_F_ADJ_ROOM_ENCAP_L3_IPV4;
	if (gue)
		flags |= BPF_F_ADJ_ROOM_ENCAP_L4_UDP;
	return !bpf_skb_adjust_room(ctx, size, BPF_ADJ_ROOM_MAC, flags) && frame_pull(ctx, xdp);
}

/* One of the eight kinds of tunnel. hop is 0 where it ends on this node: then
 * Ethernet stays, and the frame goes on to the deliverer. */
static __always_inline int tunnel_send(void *ctx, const int xdp, const struct packet *p, const struct edge_backend *b, const struct edge_source *source, const struct edge_hop *hop, __u64 hash, const int v6, const int outer6, const int gue)
{
	const __be16 protocol_be = outer6 ? bpf_htons(WIRE_ETH_IP6) : bpf_htons(WIRE_ETH_IP4);
	const __u32 size = tunnel_size(v6, outer6, gue);
	int tag = xdp && hop && hop->vlan_be;
	__u8 mac[12];
	void *data, *end;

	if (!hop) {
		data = frame_data(ctx, xdp);
		if (data + sizeof(mac) > frame_end(ctx, xdp))
			return FRAME_DROP(xdp);
		__builtin_memcpy(mac, data, sizeof(mac));
	}
	if (!tunnel_room(ctx, xdp, p, sizeof(struct wire_ethernet) + (tag ? sizeof(struct packet_tag) : 0), outer6, gue, size))
		return edge_drop(xdp, EDGE_FRAME, 0);
	data = frame_data(ctx, xdp);
	end = frame_end(ctx, xdp);
	if (data + sizeof(struct wire_ethernet) + sizeof(struct packet_tag) + size > end)
		return edge_drop(xdp, EDGE_FRAME, 0);
	if (!hop) {
		__builtin_memcpy(data, mac, sizeof(mac));
		((struct wire_ethernet *)data)->protocol_be = protocol_be;
	} else if (tag) {
		edge_ethernet(data, hop, protocol_be, 1);
		data += sizeof(struct packet_tag);
	} else {
		edge_ethernet(data, hop, protocol_be, 0);
	}
	tunnel_write(data + sizeof(struct wire_ethernet), p, b, source, hash, v6, outer6, gue);
	if (!hop)
		return FRAME_PASS(xdp);
	if (!xdp && hop->vlan_be && bpf_skb_vlan_push(ctx, bpf_htons(PACKET_ETH_VLAN), bpf_ntohs(hop->vlan_be)))
		return edge_drop(xdp, EDGE_FRAME, 0);
	return frame_send(ctx, xdp, hop->ifindex);
}

/* Delivers through the tunnel to the backend's node. */
static __always_inline int tunnel(void *ctx, const int xdp, const struct packet *p, const struct edge_backend *b, __u32 service, __u64 hash, int gue)
{
	int outer6 = b->flags & EDGE_OUTER6;
	__u32 size = tunnel_size(p->v6, outer6, gue), zero = 0, mtu;
	const struct edge_config *c = bpf_map_lookup_elem(&edge_config, &zero);
	const struct edge_hop *hop = 0;
	const struct edge_source *source;
	struct edge_hop found;
	int why;

	if (!c)
		return edge_drop(xdp, EDGE_DAMAGED, service);
	source = &c->source[c->which & 1];
	if (outer6 ? !source->v6.half_be[0] : !source->v4.word_be[3])
		return edge_drop(xdp, EDGE_NO_SOURCE, service);
	if (!(b->flags & EDGE_LOCAL)) {
		hop = bpf_map_lookup_elem(&edge_hops, &b->hop);
		if (!hop)
			return edge_drop(xdp, EDGE_DAMAGED, service);
		if (!b->hop) {
			why = edge_fib(ctx, frame_ifindex(ctx, xdp), outer6 ? &source->v6 : &source->v4, &b->node, &found);
			if (why)
				return edge_drop(xdp, why, service);
			hop = &found;
		}
		mtu = hop->mtu;
		if (frame_wire_length(ctx, xdp, p, frame_data(ctx, xdp), frame_end(ctx, xdp)) + size > mtu)
			return answer_too_big(ctx, xdp, p, mtu - size, service);
	}
	edge_delivered_count(service, p->length);
	if (gue) {
		if (!p->v6)
			return outer6 ? tunnel_send(ctx, xdp, p, b, source, hop, hash, 0, 1, 1) :
					tunnel_send(ctx, xdp, p, b, source, hop, hash, 0, 0, 1);
		return outer6 ? tunnel_send(ctx, xdp, p, b, source, hop, hash, 1, 1, 1) :
				tunnel_send(ctx, xdp, p, b, source, hop, hash, 1, 0, 1);
	}
	if (!p->v6)
		return outer6 ? tunnel_send(ctx, xdp, p, b, source, hop, hash, 0, 1, 0) :
				tunnel_send(ctx, xdp, p, b, source, hop, hash, 0, 0, 0);
	return outer6 ? tunnel_send(ctx, xdp, p, b, source, hop, hash, 1, 1, 0) :
			tunnel_send(ctx, xdp, p, b, source, hop, hash, 1, 0, 0);
}
