/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * ICMP to a virtual address. Errors go to the backend of the flow that they are
 * about: that is how it learns of a smaller MTU. Echo requests are answered here,
 * so an answer tells that the edge lives, not that a backend does. What IPv6 needs
 * to find neighbours is the kernel's, and all else is dropped.
 */
#pragma once
#include "edge_pick.h"

enum {
	ICMP4_ECHO = 8,
	ICMP6_ECHO = 128,
	ICMP6_ECHO_REPLY = 129,
	ICMP6_NEIGHBOUR_FIRST = 133, /* router solicitation */
	ICMP6_NEIGHBOUR_LAST = 136,  /* neighbour advertisement */
};

/* Reads the flow that the error at p quotes, as its client sends it, into q. Tells
 * whether there is one. The quoted packet went the other way. */
static __always_inline int icmp_quoted(const struct packet *p, const void *data, const void *data_end, struct packet *q)
{
	const void *at = data + packet_l4(p) + sizeof(struct wire_icmp);
	const struct wire_udp *ports;

	q->v6 = p->v6;
	if (p->v6) {
		const struct wire_ip6 *ip = at;

		if ((const void *)(ip + 1) > data_end || ip->version_class >> 4 != 6)
			return 0;
		q->src = ip->dest;
		q->dst = ip->source;
		q->protocol = ip->protocol;
		ports = (const void *)(ip + 1);
	} else {
		const struct wire_ip4 *ip = at;
		__u64 header;

		if ((const void *)(ip + 1) > data_end || ip->version_length >> 4 != 4)
			return 0;
		header = (ip->version_length & 15) * 4;
		if (header < sizeof(*ip) || (ip->fragment_be & bpf_htons(WIRE_FRAGMENT_OFFSET)))
			return 0;
		wire_address4(&q->src, ip->dest_be);
		wire_address4(&q->dst, ip->source_be);
		q->protocol = ip->protocol;
		ports = at + header;
	}
	if ((const void *)(ports + 1) > data_end || (q->protocol != IPPROTO_TCP && q->protocol != IPPROTO_UDP))
		return 0;
	q->sport_be = ports->dest_be;
	q->dport_be = ports->source_be;
	q->tcp_flags = WIRE_TCP_ACK; /* its flow has begun */
	return wire_address_equal(&q->dst, &p->dst);
}

/* Turns the echo request into its reply. */
static __always_inline int icmp_echo(void *ctx, const int xdp, const struct packet *p)
{
	void *data = frame_data(ctx, xdp), *end = frame_end(ctx, xdp);
	struct wire_icmp *icmp = data + packet_l4(p);

	if ((void *)(icmp + 1) > end)
		return edge_drop(xdp, EDGE_ICMP, 0);
	/* Addresses that change places change no sum. */
	if (p->v6) {
		struct wire_ip6 *ip = data + packet_l3(p);

		if ((void *)(ip + 1) > end)
			return edge_drop(xdp, EDGE_ICMP, 0);
		ip->source = p->dst;
		ip->dest = p->src;
		ip->hops = 64;
		icmp->type = ICMP6_ECHO_REPLY;
		icmp->check = sum_apply(icmp->check, sum_swap(0, ICMP6_ECHO, ICMP6_ECHO_REPLY));
	} else {
		struct wire_ip4 *ip = data + packet_l3(p);

		if ((void *)(ip + 1) > end)
			return edge_drop(xdp, EDGE_ICMP, 0);
		ip->source_be = p->dst.word_be[3];
		ip->dest_be = p->src.word_be[3];
		ip->check = sum_apply(ip->check, sum_swap(0, ip->ttl, 64));
		ip->ttl = 64;
		icmp->type = 0;
		icmp->check = sum_apply(icmp->check, sum_swap(0, ICMP4_ECHO, 0));
	}
	edge_reason_count(EDGE_ECHO);
	return frame_return(ctx, xdp);
}
