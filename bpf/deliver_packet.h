/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Reading packets. All of it goes through bpf_skb_load_bytes, which works for
 * bytes outside of the linear part too and takes any offset.
 */
#pragma once
#include "deliver_maps.h"
#include "deliver_skb.h"

#define ETHERNET 14

enum { WHOLE = 0, FIRST_FRAGMENT = 1, LATER_FRAGMENT = 2 };

/*
 * Where a packet stands. One in a tunnel must fit it; of a quoted one only the
 * first bytes may be there; and one that has a frame of its own may be larger
 * than its length field can tell, if it is for the device to cut it (BIG TCP,
 * Linux 5.19 and 6.3): then that is 0.
 */
enum { IN_TUNNEL = 0, QUOTED = 1, IN_FRAME = 2 };

struct packet {
	struct address source;
	struct address dest;
	__be16 source_port_be;
	__be16 dest_port_be;
	__u32 l3; /* offsets in the frame */
	__u32 l4;
	__u32 end; /* where the IP packet ends by its own account */
	__be32 id_be;
	__u8 protocol;
	__u8 v6;
	__u8 fragment;
	__u8 flags; /* of TCP */
};

static __always_inline int packet_read_ip4(struct __sk_buff *skb, struct packet *p, int place)
{
	struct wire_ip4 ip;
	__u32 header, length, fragment;

	if (bpf_skb_load_bytes(skb, p->l3, &ip, sizeof(ip)))
		return 0;
	header = (ip.version_length & 15) * 4;
	length = bpf_ntohs(ip.length_be);
	if (!length && place == IN_FRAME)
		length = skb->len - p->l3;
	if (ip.version_length >> 4 != 4 || header < sizeof(ip) || length < header)
		return 0;
	wire_address4(&p->source, ip.source_be);
	wire_address4(&p->dest, ip.dest_be);
	p->protocol = ip.protocol;
	p->l4 = p->l3 + header;
	p->end = p->l3 + length;
	p->id_be = ip.id_be;
	fragment = bpf_ntohs(ip.fragment_be);
	if (fragment & WIRE_FRAGMENT_OFFSET)
		p->fragment = LATER_FRAGMENT;
	else if (fragment & WIRE_MORE_FRAGMENTS)
		p->fragment = FIRST_FRAGMENT;
	return 1;
}

/* Extension headers that may come before the transport's, at most this many. */
#define EXTENSIONS 4

static __always_inline int packet_read_ip6(struct __sk_buff *skb, struct packet *p, int place)
{
	struct wire_ip6 ip;

	if (bpf_skb_load_bytes(skb, p->l3, &ip, sizeof(ip)) || ip.version_class >> 4 != 6)
		return 0;
	p->source = ip.source;
	p->dest = ip.dest;
	p->protocol = ip.protocol;
	p->l4 = p->l3 + sizeof(ip);
	p->end = p->l4 + bpf_ntohs(ip.length_be);
	if (!ip.length_be && place == IN_FRAME)
		p->end = skb->len;
	for (int i = 0; i < EXTENSIONS; i++) {
		struct wire_fragment6 extension;
		__u32 offset, size;

		/* Hop-by-hop options, routing, fragment, destination options. */
		if (p->protocol != 0 && p->protocol != 43 && p->protocol != WIRE_FRAGMENT6 && p->protocol != 60)
			return 1;
		if (bpf_skb_load_bytes(skb, p->l4, &extension, sizeof(extension)))
			return 0;
		size = (extension.reserved + 1) * 8;
		if (p->protocol == WIRE_FRAGMENT6) {
			size = sizeof(extension);
			offset = bpf_ntohs(extension.offset_be);
			p->id_be = extension.id_be;
			if (offset & WIRE_FRAGMENT_OFFSET6)
				p->fragment = LATER_FRAGMENT;
			else if (offset & WIRE_MORE_FRAGMENTS6)
				p->fragment = FIRST_FRAGMENT;
		}
		p->l4 += size;
		p->protocol = extension.protocol;
		if (p->fragment == LATER_FRAGMENT)
			return 1;
	}
	/* Still an extension header: its number is no protocol of ours. */
	return 1;
}

/*
 * Reads the IP packet at l3, whose family is known. end is where the frame, or
 * what it is in, ends.
 */
static __always_inline int packet_read(struct __sk_buff *skb, __u32 l3, __u32 end, int v6, int place, struct packet *p)
{
	struct wire_tcp tcp;

	*p = (struct packet){ .l3 = l3, .v6 = v6 };
	if (!(v6 ? packet_read_ip6(skb, p, place) : packet_read_ip4(skb, p, place)))
		return 0;
	if (place != QUOTED && p->end > end)
		return 0;
	if (p->fragment == LATER_FRAGMENT)
		return p->l4 <= p->end;
	if (p->protocol == IPPROTO_TCP && place != QUOTED) {
		if (p->l4 + sizeof(tcp) > p->end || bpf_skb_load_bytes(skb, p->l4, &tcp, sizeof(tcp)))
			return 0;
		p->flags = tcp.flags;
	} else if (p->protocol == IPPROTO_TCP || p->protocol == IPPROTO_UDP) {
		if (p->l4 + 8 > p->end || bpf_skb_load_bytes(skb, p->l4, &tcp, 8))
			return 0;
	} else {
		return 1;
	}
	p->source_port_be = tcp.source_be;
	p->dest_port_be = tcp.dest_be;
	return 1;
}
