/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * The way to the next machine: from the hop that user space has found, else from
 * the kernel's routes and neighbours.
 */
#pragma once
#include "edge_count.h"

struct bpf_fib_lookup {
	__u8 family;
	__u8 l4_protocol;
	__be16 sport;
	__be16 dport;
	__u16 tot_len; /* in: 0, no check; out: the route's MTU */
	__u32 ifindex;
	__u8 tos;
	__u8 pad[3];
	struct address src; /* IPv4 in the first word */
	struct address dst;
	__u32 vlan;
	__u8 smac[6];
	__u8 dmac[6];
};

enum {
	FIB_INET = 2,
	FIB_INET6 = 10,
	FIB_SUCCESS = 0,
	FIB_NO_NEIGHBOUR = 7,
	FIB_MTU = 1500,
};

/*
 * Asks the kernel for the way from src to dst. Tells 0 or why there is none. The
 * kernel answers for interfaces that forward alone
 * (net.ipv4.conf.*.forwarding, net.ipv6.conf.*.forwarding).
 *
 * A packet whose next hop is not resolved cannot be left to the kernel: it would
 * take one that arrives with a source address of its own for a forgery. It is
 * dropped, and whoever finds the hops for Set has the kernel ask for it.
 */
static __attribute__((noinline)) int edge_fib(void *ctx, __u32 ifindex, const struct address *src, const struct address *dst, struct edge_hop *hop)
{
	struct bpf_fib_lookup f = { .ifindex = ifindex, .l4_protocol = IPPROTO_UDP };
	int found;

	__builtin_memset(hop, 0, sizeof(*hop));
	if (wire_address_is4(dst)) {
		f.family = FIB_INET;
		f.src.word_be[0] = src->word_be[3];
		f.dst.word_be[0] = dst->word_be[3];
	} else {
		f.family = FIB_INET6;
		f.src = *src;
		f.dst = *dst;
	}
	found = bpf_fib_lookup(ctx, &f, sizeof(f), 0);
	if (found == FIB_NO_NEIGHBOUR) {
		hop->ifindex = f.ifindex;
		return EDGE_NO_NEIGHBOUR;
	}
	if (found != FIB_SUCCESS)
		return EDGE_NO_ROUTE;
	__builtin_memcpy(hop->dmac, f.dmac, 6);
	__builtin_memcpy(hop->smac, f.smac, 6);
	hop->ifindex = f.ifindex;
	/* Linux 5.12 and later say. */
	hop->mtu = f.tot_len ? f.tot_len : FIB_MTU;
	return 0;
}

/* Puts the Ethernet header (and tag) of the hop at data. The caller has made
 * sure of the room. */
static __always_inline void edge_ethernet(void *data, const struct edge_hop *hop, __be16 protocol_be, const int tag)
{
	struct wire_ethernet *eth = data;

	__builtin_memcpy(data, hop->dmac, 12);
	if (tag) {
		struct packet_tag *t = data + sizeof(*eth);

		eth->protocol_be = bpf_htons(PACKET_ETH_VLAN);
		t->tag_be = hop->vlan_be;
		t->protocol_be = protocol_be;
	} else {
		eth->protocol_be = protocol_be;
	}
}
