/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Reads a frame as far as a balancer needs it: Ethernet, up to two VLAN tags,
 * IPv4 with options, IPv6 with extension headers, and what tells flows apart.
 * It judges every field that it goes by, and changes nothing.
 */
#pragma once
#include "deliver_wire.h"

enum {
	PACKET_ETH_VLAN = 0x8100,
	PACKET_ETH_QINQ = 0x88a8,
	PACKET_TAGS = 2,
	PACKET_EXTENSIONS = 6,      /* headers between IPv6 and what it carries */
	PACKET_EXTENSION_MAX = 256, /* bytes of all of them */
	PACKET_IP4_DONT_FRAGMENT = 0x4000,
	PACKET_IP6_HOP_BY_HOP = 0,
	PACKET_IP6_ROUTING = 43,
	PACKET_IP6_DESTINATION = 60,
	PACKET_L3_MAX = sizeof(struct wire_ethernet) + PACKET_TAGS * 4,
	PACKET_L4_MAX = PACKET_L3_MAX + sizeof(struct wire_ip6) + PACKET_EXTENSION_MAX,
	PACKET_LENGTH_MAX = sizeof(struct wire_ip6) + 65535,
};

enum packet_kind {
	PACKET_NONE = 0,     /* no IP packet, or not even its addresses */
	PACKET_FLOW = 1,     /* TCP or UDP with ports; perhaps a first fragment */
	PACKET_FRAGMENT = 2, /* a later fragment: it has no ports */
	PACKET_ICMP = 3,
	PACKET_OTHER = 4,    /* another protocol */
	PACKET_BAD = 5,      /* see fault; the addresses are right */
};

enum packet_fault {
	FAULT_NONE = 0,
	FAULT_IP_HEADER = 1,   /* header length, or TTL 0 */
	FAULT_IP_LENGTH = 2,   /* total length beyond the frame or within the header */
	FAULT_IP_CHECKSUM = 3,
	FAULT_SOURCE = 4,      /* a source address that nobody can have */
	FAULT_EXTENSION = 5,   /* too many, cut short, or a route that is not at its end */
	FAULT_FRAGMENT = 6,    /* offset and length that no sender makes */
	FAULT_PORTS = 7,       /* cut short, or from TCP port 0 */
	FAULT_TCP = 8,         /* header length, or flags that exclude each other */
	FAULT_UDP = 9,         /* length */
	FAULT_MAX = 10,
};

/* Offsets and lengths take 8 bytes each, since the verifier keeps track of the
 * bounds of such on the stack alone. */
struct packet {
	struct address src;
	struct address dst;
	__u64 l3;     /* offset of the IP header */
	__u64 l4;     /* offset of what it carries */
	__u64 length; /* of the IP packet */
	__be16 sport_be;
	__be16 dport_be;
	__be32 fragment_id_be;
	__u8 v6;
	__u8 protocol;
	__u8 kind;
	__u8 fault;
	__u8 class;          /* DSCP and ECN */
	__u8 tcp_flags;
	__u8 first_fragment; /* others follow */
	__u8 dont_fragment;
};

struct packet_tag {
	__be16 tag_be;
	__be16 protocol_be;
};

static __always_inline void packet_bad(struct packet *p, __u8 fault)
{
	p->kind = PACKET_BAD;
	p->fault = fault;
}

static __always_inline void packet_tcp(struct packet *p, const void *data, const void *data_end)
{
	const struct wire_tcp *tcp = data + p->l4;
	__u32 carried = p->length - (p->l4 - p->l3), header;
	__u8 flags;

	if ((const void *)(tcp + 1) > data_end || carried < sizeof(*tcp))
		return packet_bad(p, FAULT_PORTS);
	p->sport_be = tcp->source_be;
	p->dport_be = tcp->dest_be;
	p->tcp_flags = flags = tcp->flags;
	header = tcp->offset >> 4 << 2;
	if (!p->sport_be)
		return packet_bad(p, FAULT_PORTS);
	/* Scans use these; no stack sends them. */
	if (header < sizeof(*tcp) || header > carried ||
	    !(flags & (WIRE_TCP_SYN | WIRE_TCP_RST | WIRE_TCP_ACK)) ||
	    ((flags & WIRE_TCP_SYN) && (flags & (WIRE_TCP_FIN | WIRE_TCP_RST))))
		return packet_bad(p, FAULT_TCP);
	p->kind = PACKET_FLOW;
}

static __always_inline void packet_udp(struct packet *p, const void *data, const void *data_end)
{
	const struct wire_udp *udp = data + p->l4;
	__u32 carried = p->length - (p->l4 - p->l3), length;

	if ((const void *)(udp + 1) > data_end || carried < sizeof(*udp))
		return packet_bad(p, FAULT_PORTS);
	p->sport_be = udp->source_be;
	p->dport_be = udp->dest_be;
	length = bpf_ntohs(udp->length_be);
	if (length < sizeof(*udp) || (length > carried && !p->first_fragment))
		return packet_bad(p, FAULT_UDP);
	p->kind = PACKET_FLOW;
}

/* What the IP header carries; not for later fragments. */
static __always_inline void packet_carried(struct packet *p, const void *data, const void *data_end)
{
	if (p->protocol == IPPROTO_TCP)
		packet_tcp(p, data, data_end);
	else if (p->protocol == IPPROTO_UDP)
		packet_udp(p, data, data_end);
	else if (p->protocol == (p->v6 ? WIRE_ICMP6 : WIRE_ICMP))
		p->kind = PACKET_ICMP;
	else
		p->kind = PACKET_OTHER;
}

/* The sum over a whole header is 0xffff. 32-bit words add up just as well. */
static __always_inline int packet_sum4(const struct wire_ip4 *ip, const void *data_end, __u32 words)
{
	const __u32 *w = (const __u32 *)ip;
	__u64 sum = (__u64)w[0] + w[1] + w[2] + w[3] + w[4];

	if (words > 5) {
		w += 5;
		for (int i = 5; i < 15; i++, w++) {
			if (i >= words || (const void *)(w + 1) > data_end)
				break;
			sum += *w;
		}
	}
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum == 0xffff;
}

/* 0.0.0.0/8, loopback, multicast and above. */
static __always_inline int packet_source4(__be32 ip_be)
{
	__u8 first = ip_be & 0xff; /* the first on the wire, on little-endian machines */

	return first != 0 && first != 127 && first < 224;
}

/* Unspecified, loopback, multicast, and IPv4 in disguise. */
static __always_inline int packet_source6(const struct address *a)
{
	return (a->word_be[0] & 0xff) != 0xff && (a->half_be[0] || (a->word_be[2] && a->word_be[2] != bpf_htonl(0xffff)));
}

static __always_inline void packet_read4(struct packet *p, const void *data, const void *data_end, __u32 frame)
{
	const struct wire_ip4 *ip = data + p->l3;
	__u32 words, fragment;

	if ((const void *)(ip + 1) > data_end || ip->version_length >> 4 != 4)
		return;
	wire_address4(&p->src, ip->source_be);
	wire_address4(&p->dst, ip->dest_be);
	p->class = ip->service;
	p->protocol = ip->protocol;
	p->length = bpf_ntohs(ip->length_be);
	words = ip->version_length & 15;
	p->l4 = p->l3 + words * 4;
	if (words < 5 || !ip->ttl)
		return packet_bad(p, FAULT_IP_HEADER);
	if (p->length < words * 4 || p->l3 + p->length > frame)
		return packet_bad(p, FAULT_IP_LENGTH);
	if (!packet_sum4(ip, data_end, words))
		return packet_bad(p, FAULT_IP_CHECKSUM);
	if (!packet_source4(ip->source_be) || ip->source_be == ip->dest_be)
		return packet_bad(p, FAULT_SOURCE);
	fragment = bpf_ntohs(ip->fragment_be);
	p->dont_fragment = !!(fragment & PACKET_IP4_DONT_FRAGMENT);
	if (fragment & (WIRE_MORE_FRAGMENTS | WIRE_FRAGMENT_OFFSET)) {
		p->fragment_id_be = ip->id_be;
		/* All but the last carry whole units of 8 bytes, and an end
		 * beyond the largest packet overwrites memory in old stacks. */
		if (((fragment & WIRE_MORE_FRAGMENTS) && (p->length - words * 4) % 8) ||
		    (fragment & WIRE_FRAGMENT_OFFSET) * 8 + p->length > 65535)
			return packet_bad(p, FAULT_FRAGMENT);
		if (fragment & WIRE_FRAGMENT_OFFSET) {
			p->kind = PACKET_FRAGMENT;
			return;
		}
		p->first_fragment = 1;
	}
	packet_carried(p, data, data_end);
}

/* Finds what IPv6 carries behind its extension headers. */
static __always_inline void packet_read_extensions(struct packet *p, const void *data, const void *data_end)
{
	for (int i = 0; i < PACKET_EXTENSIONS; i++) {
		const struct wire_fragment6 *x = data + p->l4;
		__u32 offset, size;

		switch (p->protocol) {
		case PACKET_IP6_HOP_BY_HOP:
		case PACKET_IP6_ROUTING:
		case PACKET_IP6_DESTINATION:
		case WIRE_FRAGMENT6:
			break;
		default:
			return packet_carried(p, data, data_end);
		}
		if ((const void *)(x + 1) > data_end)
			return packet_bad(p, FAULT_EXTENSION);
		size = p->protocol == WIRE_FRAGMENT6 ? sizeof(*x) : (x->reserved + 1) * 8U;
		if (p->l4 + size - p->l3 > p->length || p->l4 + size - p->l3 > sizeof(struct wire_ip6) + PACKET_EXTENSION_MAX)
			return packet_bad(p, FAULT_EXTENSION);
		/* Segments left: this is not where the packet ends. */
		if (p->protocol == PACKET_IP6_ROUTING && (bpf_ntohs(x->offset_be) & 0xff))
			return packet_bad(p, FAULT_EXTENSION);
		if (p->protocol == WIRE_FRAGMENT6) {
			offset = bpf_ntohs(x->offset_be);
			p->fragment_id_be = x->id_be;
			if (((offset & WIRE_MORE_FRAGMENTS6) && (p->length + p->l3 - p->l4 - size) % 8) ||
			    (offset & WIRE_FRAGMENT_OFFSET6) + p->length > 65535)
				return packet_bad(p, FAULT_FRAGMENT);
			p->first_fragment = !!(offset & WIRE_MORE_FRAGMENTS6);
			if (offset & WIRE_FRAGMENT_OFFSET6) {
				p->kind = PACKET_FRAGMENT;
				p->protocol = x->protocol;
				p->l4 += size;
				return;
			}
		}
		p->protocol = x->protocol;
		p->l4 += size;
	}
	packet_bad(p, FAULT_EXTENSION);
}

static __always_inline void packet_read6(struct packet *p, const void *data, const void *data_end, __u32 frame)
{
	const struct wire_ip6 *ip = data + p->l3;

	if ((const void *)(ip + 1) > data_end || ip->version_class >> 4 != 6)
		return;
	p->v6 = 1;
	p->src = ip->source;
	p->dst = ip->dest;
	p->class = ip->version_class << 4 | ip->flow[0] >> 4;
	p->protocol = ip->protocol;
	p->length = sizeof(*ip) + bpf_ntohs(ip->length_be);
	p->l4 = p->l3 + sizeof(*ip);
	p->dont_fragment = 1;
	if (!ip->hops)
		return packet_bad(p, FAULT_IP_HEADER);
	/* Length 0 is a jumbogram (RFC 2675), which no device here carries. */
	if (p->length == sizeof(*ip) || p->l3 + p->length > frame)
		return packet_bad(p, FAULT_IP_LENGTH);
	if (!packet_source6(&p->src) || wire_address_equal(&p->src, &p->dst))
		return packet_bad(p, FAULT_SOURCE);
	if (p->protocol == IPPROTO_TCP)
		return packet_tcp(p, data, data_end);
	if (p->protocol == IPPROTO_UDP)
		return packet_udp(p, data, data_end);
	packet_read_extensions(p, data, data_end);
}

/*
 * Reads the frame of the given length, of which data to data_end are in one
 * piece, into p, which is all zero.
 */
static __always_inline void packet_read(struct packet *p, const void *data, const void *data_end, __u32 frame)
{
	const struct wire_ethernet *eth = data;
	__be16 protocol_be;

	if ((const void *)(eth + 1) > data_end)
		return;
	protocol_be = eth->protocol_be;
	p->l3 = sizeof(*eth);
	for (int i = 0; i < PACKET_TAGS; i++) {
		const struct packet_tag *tag = data + p->l3;

		if (protocol_be != bpf_htons(PACKET_ETH_VLAN) && protocol_be != bpf_htons(PACKET_ETH_QINQ))
			break;
		if ((const void *)(tag + 1) > data_end)
			return;
		protocol_be = tag->protocol_be;
		p->l3 += sizeof(*tag);
	}
	if (protocol_be == bpf_htons(WIRE_ETH_IP4))
		packet_read4(p, data, data_end, frame);
	else if (protocol_be == bpf_htons(WIRE_ETH_IP6))
		packet_read6(p, data, data_end, frame);
}

/* For a global function, in which the verifier knows nothing of what its pointers
 * point to: the offsets with their bounds. Those of packet_read are within. */
static __always_inline __u64 packet_l3(const struct packet *p)
{
	return p->l3 > PACKET_L3_MAX ? 0 : p->l3;
}

static __always_inline __u64 packet_l4(const struct packet *p)
{
	return p->l4 > PACKET_L4_MAX ? 0 : p->l4;
}

/* The same for all of p at once. Tells whether it is within its bounds. */
static __always_inline int packet_copy(struct packet *to, const struct packet *p)
{
	*to = *p;
	return to->l3 <= PACKET_L3_MAX && to->l4 <= PACKET_L4_MAX && to->l4 >= to->l3 && to->length <= PACKET_LENGTH_MAX;
}
