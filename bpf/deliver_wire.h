/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Headers on the wire, and sums over what changes in them. */
#pragma once
#include "layout.h"

enum {
	WIRE_ETH_IP4 = 0x0800,
	WIRE_ETH_IP6 = 0x86dd,
	WIRE_ICMP = 1,
	WIRE_IP_IN_IP = 4,
	WIRE_IP6_IN_IP = 41,
	WIRE_FRAGMENT6 = 44,
	WIRE_ICMP6 = 58,
	WIRE_MORE_FRAGMENTS = 0x2000,
	WIRE_FRAGMENT_OFFSET = 0x1fff,
	WIRE_MORE_FRAGMENTS6 = 0x0001,
	WIRE_FRAGMENT_OFFSET6 = 0xfff8,
	WIRE_ECN_CONGESTED = 3,
	WIRE_TCP_FIN = 0x01,
	WIRE_TCP_SYN = 0x02,
	WIRE_TCP_RST = 0x04,
	WIRE_TCP_ACK = 0x10,
};

struct wire_ethernet {
	__u8 dest[6];
	__u8 source[6];
	__be16 protocol_be;
} __attribute__((packed));

struct wire_ip4 {
	__u8 version_length;
	__u8 service;
	__be16 length_be;
	__be16 id_be;
	__be16 fragment_be;
	__u8 ttl;
	__u8 protocol;
	__u16 check;
	__be32 source_be;
	__be32 dest_be;
};

struct wire_ip6 {
	__u8 version_class;
	__u8 flow[3];
	__be16 length_be; /* of what follows the header */
	__u8 protocol;
	__u8 hops;
	struct address source;
	struct address dest;
};

struct wire_fragment6 {
	__u8 protocol;
	__u8 reserved;
	__be16 offset_be;
	__be32 id_be;
};

struct wire_udp {
	__be16 source_be;
	__be16 dest_be;
	__be16 length_be;
	__u16 check;
};

struct wire_tcp {
	__be16 source_be;
	__be16 dest_be;
	__be32 sequence_be;
	__be32 acknowledge_be;
	__u8 offset; /* of the data, in words of 4 bytes, << 4 */
	__u8 flags;
	__be16 window_be;
	__u16 check;
	__be16 urgent_be;
};

struct wire_icmp {
	__u8 type;
	__u8 code;
	__u16 check;
	__be32 rest_be;
};

/* The types of ICMP that quote the packet that they complain about. */
static __always_inline int wire_icmp_is_error(int v6, __u8 type)
{
	/* RFC 4443 section 2.1; RFC 792: unreachable, quench, time exceeded,
	 * parameter problem. Redirects are for the next hop alone. */
	return v6 ? type >= 1 && type < 128 : type == 3 || type == 4 || type == 11 || type == 12;
}

static __always_inline int wire_address_equal(const struct address *a, const struct address *b)
{
	/* Without a branch: the verifier follows each of them. */
	return !((a->half_be[0] ^ b->half_be[0]) | (a->half_be[1] ^ b->half_be[1]));
}

static __always_inline void wire_address4(struct address *a, __be32 ip_be)
{
	a->half_be[0] = 0;
	a->word_be[2] = bpf_htonl(0xffff);
	a->word_be[3] = ip_be;
}

static __always_inline int wire_address_is4(const struct address *a)
{
	return a->half_be[0] == 0 && a->word_be[2] == bpf_htonl(0xffff);
}

/*
 * Sums of what is added to a packet and taken from it (RFC 1624). They are 64
 * bits wide so that carries need no thought until the end, and the same in
 * either byte order.
 */
static __always_inline __u64 sum_swap(__u64 sum, __u32 old, __u32 new)
{
	return sum + (__u32)~old + new;
}

/* Words 3 alone, when the address is IPv4: the others are the same in all. */
static __always_inline __u64 sum_swap_address(__u64 sum, int v6, const struct address *old, const struct address *new)
{
	if (v6) {
		sum = sum_swap(sum, old->word_be[0], new->word_be[0]);
		sum = sum_swap(sum, old->word_be[1], new->word_be[1]);
		sum = sum_swap(sum, old->word_be[2], new->word_be[2]);
	}
	return sum_swap(sum, old->word_be[3], new->word_be[3]);
}

static __always_inline __u32 sum_fold32(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	return sum;
}

static __always_inline __u16 sum_fold(__u64 sum)
{
	__u32 s = sum_fold32(sum);

	s = (s & 0xffff) + (s >> 16);
	s = (s & 0xffff) + (s >> 16);
	return s;
}

/* The checksum field after the sum has changed by diff. */
static __always_inline __u16 sum_apply(__u16 check, __u64 diff)
{
	return ~sum_fold(diff + (__u16)~check);
}
