/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Reads and changes the ends of packets, and of those that ICMP errors quote. */
#pragma once
#include "nat_layout.h"

/* The ends of a packet. */
struct nat_ends {
	struct address source;
	struct address dest;
	__be16 source_port_be;
	__be16 dest_port_be;
	__u32 pad;
};

/* Bounds for the verifier: no header of ours begins further in. */
static __always_inline void *nat_at(void *data, void *data_end, __u32 offset, __u32 size)
{
	void *at;

	if (offset > 512)
		return 0;
	at = data + offset;
	asm volatile("" : "+r"(at));
	return at + size > data_end ? 0 : at;
}

static __always_inline void nat_read_ip(const void *header, int v6, struct nat_ends *e)
{
	if (v6) {
		const struct wire_ip6 *ip = header;

		e->source = ip->source;
		e->dest = ip->dest;
	} else {
		const struct wire_ip4 *ip = header;

		wire_address4(&e->source, ip->source_be);
		wire_address4(&e->dest, ip->dest_be);
	}
}

/* Gives by how much the addresses changed the sum; that of an IPv4 header is
 * put right at once. */
static __always_inline __u64 nat_write_ip(void *header, int v6, const struct nat_ends *old, const struct nat_ends *new)
{
	__u64 diff = sum_swap_address(sum_swap_address(0, v6, &old->source, &new->source), v6, &old->dest, &new->dest);

	if (v6) {
		struct wire_ip6 *ip = header;

		ip->source = new->source;
		ip->dest = new->dest;
	} else {
		struct wire_ip4 *ip = header;

		ip->source_be = new->source.word_be[3];
		ip->dest_be = new->dest.word_be[3];
		ip->check = sum_apply(ip->check, diff);
	}
	return diff;
}

/* Ports are the first four bytes of TCP and UDP alike. */
static __always_inline void nat_read_ports(const void *l4, struct nat_ends *e)
{
	const struct wire_udp *ports = l4;

	e->source_port_be = ports->source_be;
	e->dest_port_be = ports->dest_be;
}

static __always_inline __u64 nat_write_ports(void *l4, const struct nat_ends *old, const struct nat_ends *new)
{
	struct wire_udp *ports = l4;

	ports->source_be = new->source_port_be;
	ports->dest_be = new->dest_port_be;
	return sum_swap(sum_swap(0, old->source_port_be, new->source_port_be), old->dest_port_be, new->dest_port_be);
}

enum {
	BPF_F_PSEUDO_HDR = 1U << 4,
	BPF_F_MARK_MANGLED_0 = 1U << 5,
};

/*
 * The checksum of TCP or UDP after addresses and ports have changed its sum. Of a
 * packet that the kernel has joined from many (GRO), or made itself, the field is
 * the sum of the pseudo header alone, which the ports are no part of: only the
 * helper knows.
 */
static __always_inline void nat_sum_skb(const struct nat_packet *p, __u64 addresses, __u64 ports)
{
	__u64 flags = p->protocol == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0;
	__u32 at = p->l4 + (p->protocol == IPPROTO_UDP ? __builtin_offsetof(struct wire_udp, check) : __builtin_offsetof(struct wire_tcp, check));

	bpf_l4_csum_replace(p->skb, at, 0, sum_fold32(addresses), flags | BPF_F_PSEUDO_HDR);
	bpf_l4_csum_replace(p->skb, at, 0, sum_fold32(ports), flags);
}

/* Changes the packet's ends and puts its checksums right; tcp is l4, or null
 * for UDP. At TCX the pointers are not valid any more. */
static __always_inline void nat_rewrite(void *ip, void *l4, struct wire_tcp *tcp, const struct nat_packet *p, const struct nat_ends *old, const struct nat_ends *new)
{
	__u64 addresses = nat_write_ip(ip, p->v6, old, new), ports = nat_write_ports(l4, old, new);
	__u64 diff = addresses + ports;

	if (p->skb) {
		nat_sum_skb(p, addresses, ports);
	} else if (tcp) {
		tcp->check = sum_apply(tcp->check, diff);
	} else {
		struct wire_udp *udp = l4;

		/* Zero means none, in IPv4 (RFC 768). */
		if (udp->check)
			udp->check = sum_apply(udp->check, diff) ?: 0xffff;
	}
}

/* An ICMP error, with what it quotes. */
struct nat_error {
	void *ip;
	struct wire_icmp *icmp;
	void *quoted_ip;
	void *quoted_l4; /* its ports, and no more: RFC 792 promises 8 bytes */
	struct nat_ends outer;
	struct nat_ends quoted;
	__u8 protocol;
};

/* A quoted packet with options, extension headers or of a later fragment is
 * not understood. */
static __always_inline int nat_read_error(void *data, void *data_end, const struct nat_packet *p, struct nat_error *e)
{
	__u32 quoted = p->l4 + sizeof(struct wire_icmp);

	e->ip = nat_at(data, data_end, p->l3, p->v6 ? sizeof(struct wire_ip6) : sizeof(struct wire_ip4));
	e->icmp = nat_at(data, data_end, p->l4, sizeof(struct wire_icmp));
	if (!e->ip || !e->icmp)
		return 0;
	if (p->v6) {
		struct wire_ip6 *ip = nat_at(data, data_end, quoted, sizeof(*ip));

		if (!ip || ip->version_class >> 4 != 6)
			return 0;
		e->protocol = ip->protocol;
		e->quoted_ip = ip;
		e->quoted_l4 = nat_at(data, data_end, quoted + sizeof(*ip), 8);
	} else {
		struct wire_ip4 *ip = nat_at(data, data_end, quoted, sizeof(*ip));

		if (!ip || ip->version_length != 0x45 || ip->fragment_be & bpf_htons(WIRE_FRAGMENT_OFFSET))
			return 0;
		e->protocol = ip->protocol;
		e->quoted_ip = ip;
		e->quoted_l4 = nat_at(data, data_end, quoted + sizeof(*ip), 8);
	}
	if (!e->quoted_l4 || (e->protocol != IPPROTO_TCP && e->protocol != IPPROTO_UDP))
		return 0;
	nat_read_ip(e->ip, p->v6, &e->outer);
	nat_read_ip(e->quoted_ip, p->v6, &e->quoted);
	nat_read_ports(e->quoted_l4, &e->quoted);
	return 1;
}

/* The checksum inside the quoted packet stays as it is: nobody can check it
 * against a packet that is cut short, and nobody does. What was there is read
 * anew, which spares stack while the flow is looked for. */
static __always_inline void nat_rewrite_error(const struct nat_packet *p, struct nat_error *e, const struct nat_ends *outer, const struct nat_ends *quoted)
{
	struct nat_ends old = {};
	__u64 around, inside, diff;

	nat_read_ip(e->ip, p->v6, &old);
	around = nat_write_ip(e->ip, p->v6, &old, outer);
	nat_read_ip(e->quoted_ip, p->v6, &old);
	nat_read_ports(e->quoted_l4, &old);
	inside = nat_write_ip(e->quoted_ip, p->v6, &old, quoted);
	diff = nat_write_ports(e->quoted_l4, &old, quoted);
	/* ICMPv6 sums the addresses around it too; and a quoted IPv4 header's own
	 * checksum has made up for its addresses. */
	if (p->v6)
		diff += around + inside;
	e->icmp->check = sum_apply(e->icmp->check, diff);
}
