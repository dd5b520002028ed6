/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* The frame of a query: is it one for us, and how does its answer travel. */
#pragma once
#include "dns_maps.h"

/* UAPI as in kernel.h. */
struct __sk_buff {
	__u32 len;
	__u32 pkt_type;
	__u32 mark;
	__u32 queue_mapping;
	__u32 protocol; /* 16 bits in network byte order */
	__u32 vlan_present;
	__u32 vlan_tci;
	__u32 vlan_proto;
	__u32 priority;
	__u32 ingress_ifindex;
	__u32 ifindex;
	__u32 tc_index;
	__u32 cb[5];
	__u32 hash;
	__u32 tc_classid;
	__u32 data;
	__u32 data_end;
};

/* What a program at TCX returns (Linux 6.6). */
enum { TCX_NEXT = -1 };

enum { PACKET_BROADCAST = 1, PACKET_MULTICAST = 2 };

enum {
	DNS_UDP = 17,
	DNS_TTL = 64,
	DNS_DONT_FRAGMENT = 0x4000,
};

/*
 * Places in the scratch frame. The question's name begins at a multiple of 8
 * bytes, whatever the family is; so a frame begins at one of two places.
 */
enum {
	NAME_AT = 80,
	MESSAGE_AT = NAME_AT - 12,
	UDP_AT = MESSAGE_AT - 8,
	IP4_AT = UDP_AT - 20,
	IP6_AT = UDP_AT - 40,
	FRAME4_AT = IP4_AT - 14,
	FRAME6_AT = IP6_AT - 14,
	/* A name, type and class, an OPT record. */
	QUERY_MAX = 12 + DNS_NAME_MAX + 4 + 11,
	QUERY_MIN = 12 + 1 + 4,
};

/* What is known of a query's packet. */
struct query {
	struct address source;
	__u64 size;      /* of the message */
	__u64 frame;     /* of all before it */
	__u64 pseudo;    /* sum of the addresses and the protocol, without the length */
	__u32 is_partial; /* the checksum is left for the device to finish */
};

enum { NOT_OURS = 0, OURS = 1, ODD = 2 };

static __always_inline __u64 load64(const __u8 *at)
{
	return *(const __u64 *)at;
}

static __always_inline __u32 load32(const __u8 *at)
{
	return *(const __u32 *)at;
}

static __always_inline __u16 load16(const __u8 *at)
{
	return *(const __u16 *)at;
}

static __always_inline int dns_listens(const struct dns_config *c, const struct address *a)
{
	for (int i = 0; i < DNS_LISTEN_MAX; i++) {
		if (i >= c->listen_count)
			return 0;
		if (wire_address_equal(&c->listen[i], a))
			return 1;
	}
	return 0;
}

/* The packet filter would have judged who asks; what it lets in anyway is here. */
static __always_inline int dns_may_ask(const struct dns_config *c, const struct address *a)
{
	if (!c->client_count)
		return 1;
	for (int i = 0; i < DNS_CLIENTS_MAX; i++) {
		const struct dns_range *r = &c->clients[i];

		if (i >= c->client_count)
			return 0;
		if (!(((a->half_be[0] & r->mask.half_be[0]) ^ r->net.half_be[0]) | ((a->half_be[1] & r->mask.half_be[1]) ^ r->net.half_be[1])))
			return 1;
	}
	return 0;
}

/* The order of the checks makes others' packets cheap. */
static __always_inline int query_for_us4(const struct __sk_buff *skb, const struct dns_config *c, struct query *q)
{
	const void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	const struct wire_ip4 *ip = data + 14;
	const struct wire_udp *udp = (const void *)(ip + 1);
	struct address dest;
	__u32 source, sum;

	if ((const void *)(udp + 1) > end || ip->protocol != DNS_UDP || udp->dest_be != c->port_be || ip->version_length != 0x45)
		return NOT_OURS;
	wire_address4(&dest, ip->dest_be);
	if (!dns_listens(c, &dest))
		return NOT_OURS;
	source = bpf_ntohl(ip->source_be);
	sum = sum_fold((__u64)load32((const __u8 *)ip) + load32((const __u8 *)ip + 4) + load32((const __u8 *)ip + 8) + ip->source_be + ip->dest_be);
	if (ip->fragment_be & ~bpf_htons(DNS_DONT_FRAGMENT) || sum != 0xffff || source >> 24 == 0 || source >> 28 >= 0xe ||
	    bpf_ntohs(ip->length_be) + 14 != skb->len || bpf_ntohs(udp->length_be) + 34 != skb->len || !udp->source_be)
		return ODD;
	wire_address4(&q->source, ip->source_be);
	q->frame = 14 + sizeof(*ip) + sizeof(*udp);
	q->pseudo = (__u64)ip->source_be + ip->dest_be + bpf_htons(DNS_UDP);
	return OURS;
}

static __always_inline __u64 sum_address(const struct address *a)
{
	return (__u64)a->word_be[0] + a->word_be[1] + a->word_be[2] + a->word_be[3];
}

static __always_inline int query_for_us6(const struct __sk_buff *skb, const struct dns_config *c, struct query *q)
{
	const void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	const struct wire_ip6 *ip = data + 14;
	const struct wire_udp *udp = (const void *)(ip + 1);

	if ((const void *)(udp + 1) > end || ip->protocol != DNS_UDP || udp->dest_be != c->port_be || ip->version_class >> 4 != 6 ||
	    !dns_listens(c, &ip->dest))
		return NOT_OURS;
	/* A sum of 0 is forbidden here (RFC 8200, 8.1). */
	if (bpf_ntohs(ip->length_be) + 54 != skb->len || ip->length_be != udp->length_be || !udp->source_be || !udp->check ||
	    *(const __u8 *)&ip->source == 0xff || !(ip->source.half_be[0] | ip->source.half_be[1]))
		return ODD;
	q->source = ip->source;
	q->frame = 14 + sizeof(*ip) + sizeof(*udp);
	q->pseudo = sum_address(&ip->source) + sum_address(&ip->dest) + bpf_htons(DNS_UDP);
	return OURS;
}

/*
 * Tells whether the checksum is right, there is none, or its sender has left it
 * to the device (it is the sum of the pseudo header then): so is it with all that
 * comes from a process over a veth. What is neither, or might be two of these, is
 * for the network stack to judge, which knows more.
 */
static __always_inline int query_sum_is_right(const __u8 *frame, struct query *q)
{
	const struct wire_udp *udp = (const void *)(frame + UDP_AT);
	__u64 pseudo = q->pseudo + udp->length_be;
	__u64 size = (q->size + 3) & ~3ULL;
	__s64 sum;

	if (!udp->check)
		return 1;
	q->is_partial = udp->check == sum_fold(pseudo);
	asm volatile("" : "+r"(size));
	if (size > QUERY_MAX + 3)
		return 0;
	sum = bpf_csum_diff(0, 0, (__be32 *)(frame + MESSAGE_AT), size, 0);
	if (sum < 0)
		return 0;
	pseudo += (__u64)load32((const __u8 *)udp) + load32((const __u8 *)udp + 4) + sum;
	return (sum_fold(pseudo) == 0xffff) != q->is_partial;
}

static __always_inline void swap_ethernet(__u8 *at)
{
	__u16 a = load16(at), b = load16(at + 2), c = load16(at + 4);

	*(__u16 *)at = load16(at + 6);
	*(__u16 *)(at + 2) = load16(at + 8);
	*(__u16 *)(at + 4) = load16(at + 10);
	*(__u16 *)(at + 6) = a;
	*(__u16 *)(at + 8) = b;
	*(__u16 *)(at + 10) = c;
}

static __always_inline void turn_ip4(__u8 *frame, __u64 size)
{
	struct wire_ip4 *ip = (void *)(frame + IP4_AT);
	__be32 source = ip->source_be;

	ip->service = 0;
	ip->length_be = bpf_htons(size + 28);
	ip->id_be = 0;
	ip->fragment_be = bpf_htons(DNS_DONT_FRAGMENT);
	ip->ttl = DNS_TTL;
	ip->check = 0;
	ip->source_be = ip->dest_be;
	ip->dest_be = source;
	ip->check = ~sum_fold((__u64)load32((__u8 *)ip) + load32((__u8 *)ip + 4) + load32((__u8 *)ip + 8) + ip->source_be + ip->dest_be);
	swap_ethernet(frame + FRAME4_AT);
}

static __always_inline void turn_ip6(__u8 *frame, __u64 size)
{
	struct wire_ip6 *ip = (void *)(frame + IP6_AT);
	struct address source = ip->source;

	*(__u32 *)ip = bpf_htonl(6U << 28);
	ip->length_be = bpf_htons(size + 8);
	ip->hops = DNS_TTL;
	ip->source = ip->dest;
	ip->dest = source;
	swap_ethernet(frame + FRAME6_AT);
}

/* Closes the UDP header of an answer of a size, behind which are three zeros. */
static __always_inline int turn_udp(__u8 *frame, const struct query *q, __u64 size)
{
	struct wire_udp *udp = (void *)(frame + UDP_AT);
	__be16 source = udp->source_be;
	__u64 padded = (size + 3) & ~3ULL;
	__s64 sum;

	udp->source_be = udp->dest_be;
	udp->dest_be = source;
	udp->length_be = bpf_htons(size + 8);
	if (q->is_partial) {
		udp->check = sum_fold(q->pseudo + udp->length_be);
		return 1;
	}
	udp->check = 0;
	asm volatile("" : "+r"(padded));
	if (padded > 512)
		return 0;
	sum = bpf_csum_diff(0, 0, (__be32 *)(frame + MESSAGE_AT), padded, 0);
	if (sum < 0)
		return 0;
	udp->check = ~sum_fold(q->pseudo + udp->length_be + load32((__u8 *)udp) + load32((__u8 *)udp + 4) + sum);
	if (!udp->check)
		udp->check = 0xffff; /* 0 means none */
	return 1;
}
