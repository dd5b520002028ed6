/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * The tunnels' end. The format is told at dataplane.GUEPort.
 *
 * A backend on the edge node itself needs nothing special: the edge program
 * wraps the packet as for any node, with its own address at both ends, and
 * passes it up (XDP_PASS) instead of sending it. TCX comes after XDP on the
 * same interface, takes it out of the tunnel as any other, and the node's own
 * address is one of the edges in the table. So there is one way in, and one
 * place that remembers flows.
 */
#pragma once
#include "deliver_packet.h"

#define GUE_PORT 6080

struct gue {
	__u8 variant_length; /* variant: 2 bits, control: 1, length in words: 5 */
	__u8 protocol;
	__be16 flags_be;
	__be16 backend_port_be;
	__be16 zero_be;
};

struct tunnel {
	struct address backend;
	__be16 backend_port_be;
	__u8 v6; /* the client's packet */
	__u8 outer6;
	__u32 congested; /* the tunnel's packet bears the mark of congestion (ECN) */
	__u32 inner; /* where it begins in the frame */
	__u32 end;   /* where the tunnel's packet ends */
};

struct outer {
	struct address source;
	struct address dest;
	__u32 udp;
	__u32 end;
	__u8 fragmented;
	__u8 bad;
	__u8 ecn;
};

static __always_inline __u16 outer_sum(const struct wire_ip4 *ip)
{
	const __u16 *half = (const __u16 *)ip;
	__u32 sum = 0;

	for (int i = 0; i < 10; i++)
		sum += half[i];
	return sum_fold(sum);
}

/* Whether it may be a tunnel's packet; TCX runs before the kernel has checked
 * anything. Headers with options or extensions are never ours. */
static __always_inline int outer_read(struct __sk_buff *skb, int v6, struct outer *o)
{
	if (v6) {
		struct wire_ip6 ip;

		if (bpf_skb_load_bytes(skb, ETHERNET, &ip, sizeof(ip)) || ip.version_class >> 4 != 6 || ip.protocol != IPPROTO_UDP)
			return 0;
		o->source = ip.source;
		o->dest = ip.dest;
		o->ecn = ip.flow[0] >> 4 & WIRE_ECN_CONGESTED;
		o->udp = ETHERNET + sizeof(ip);
		o->end = o->udp + bpf_ntohs(ip.length_be);
	} else {
		struct wire_ip4 ip;

		if (bpf_skb_load_bytes(skb, ETHERNET, &ip, sizeof(ip)) || ip.version_length != 0x45 || ip.protocol != IPPROTO_UDP)
			return 0;
		/* Later fragments have no port to know them by. */
		if (ip.fragment_be & bpf_htons(WIRE_FRAGMENT_OFFSET))
			return 0;
		wire_address4(&o->source, ip.source_be);
		wire_address4(&o->dest, ip.dest_be);
		o->fragmented = !!(ip.fragment_be & bpf_htons(WIRE_MORE_FRAGMENTS));
		o->ecn = ip.service & WIRE_ECN_CONGESTED;
		o->udp = ETHERNET + sizeof(ip);
		o->end = ETHERNET + bpf_ntohs(ip.length_be);
		o->bad = outer_sum(&ip) != 0xffff;
	}
	return 1;
}

static __always_inline int end_has(const struct address *a, __u32 role)
{
	const struct tunnel_end *e = bpf_map_lookup_elem(&ends, a);

	return e && e->roles & role;
}

/*
 * NOT_OURS: no tunnel's packet. DELIVERED: t says what is in it. All others:
 * drop. The outer UDP checksum is not looked at, as RFC 6935 and 6936 have it
 * for tunnels: what the header asks for must be in our table, and the client's
 * packet has a checksum of its own.
 */
static __always_inline enum fate tunnel_read(struct __sk_buff *skb, int v6, struct tunnel *t)
{
	struct outer o = {};
	struct wire_udp udp;
	struct gue gue;

	if (!outer_read(skb, v6, &o))
		return FATE_NOT_OURS;
	if (bpf_skb_load_bytes(skb, o.udp, &udp, sizeof(udp)) || udp.dest_be != bpf_htons(GUE_PORT))
		return FATE_NOT_OURS;
	if (!end_has(&o.dest, ROLE_NODE))
		return FATE_NOT_OURS;
	if (!end_has(&o.source, ROLE_EDGE))
		return FATE_NO_EDGE;
	if (o.fragmented)
		return FATE_FRAGMENTED;
	if (o.bad || o.end > skb->len || o.udp + bpf_ntohs(udp.length_be) != o.end)
		return FATE_BAD_OUTER;
	t->inner = o.udp + sizeof(udp) + sizeof(gue);
	if (t->inner > o.end || bpf_skb_load_bytes(skb, o.udp + sizeof(udp), &gue, sizeof(gue)))
		return FATE_BAD_GUE;
	if (gue.flags_be || gue.zero_be || !gue.backend_port_be)
		return FATE_BAD_GUE;
	if (gue.variant_length == 2 && gue.protocol == WIRE_IP_IN_IP) {
		__be32 backend_be;

		if (t->inner + 4 > o.end || bpf_skb_load_bytes(skb, t->inner, &backend_be, 4))
			return FATE_BAD_GUE;
		wire_address4(&t->backend, backend_be);
		t->inner += 4;
	} else if (gue.variant_length == 5 && gue.protocol == WIRE_IP6_IN_IP) {
		if (t->inner + 16 > o.end || bpf_skb_load_bytes(skb, t->inner, &t->backend, 16))
			return FATE_BAD_GUE;
		t->inner += 16;
		t->v6 = 1;
	} else {
		return FATE_BAD_GUE;
	}
	t->backend_port_be = gue.backend_port_be;
	t->outer6 = v6;
	t->congested = o.ecn == WIRE_ECN_CONGESTED;
	t->end = o.end;
	return FATE_DELIVERED;
}

/* Takes off all that the edge node has put on: DELIVERED, or why the packet must
 * be dropped. What was at offset t->inner is at ETHERNET then. */
static __always_inline enum fate tunnel_strip(struct __sk_buff *skb, const struct tunnel *t)
{
	__be16 protocol_be = t->v6 ? bpf_htons(WIRE_ETH_IP6) : bpf_htons(WIRE_ETH_IP4);
	/* They tell the kernel the family of what is left. */
	__u64 flags = t->v6 ? BPF_F_ADJ_ROOM_DECAP_L3_IPV6 : BPF_F_ADJ_ROOM_DECAP_L3_IPV4;

	if (bpf_skb_adjust_room(skb, -(__s32)(t->inner - ETHERNET), BPF_ADJ_ROOM_MAC, flags))
		return FATE_KERNEL;
	/* Its hash was the tunnel's. */
	bpf_set_hash_invalid(skb);
	if (t->v6 != t->outer6 && bpf_skb_store_bytes(skb, __builtin_offsetof(struct wire_ethernet, protocol_be), &protocol_be, 2, 0))
		return FATE_KERNEL;
	/* A mark that the tunnel has got is passed on; who does not understand it
	 * is told by a loss (RFC 6040, section 4.2). */
	if (t->congested && !bpf_skb_ecn_set_ce(skb))
		return FATE_CONGESTED;
	return FATE_DELIVERED;
}
