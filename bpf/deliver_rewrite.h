/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Changing one end of a packet: the destination of what arrives, the source of
 * what leaves. The helpers put the packet's checksum right in each state in
 * which the kernel may have it (none, complete, to be finished by the device).
 * One thing they leave to us: the sum over a whole packet (CHECKSUM_COMPLETE)
 * changes with an IPv6 address, as there is no header checksum that makes up
 * for it; hence BPF_F_RECOMPUTE_CSUM there. (The flag BPF_F_IPV6 of Linux 6.16
 * does the same for who writes the address without the helper.)
 */
#pragma once
#include "deliver_packet.h"

/* Which end, and what it becomes. */
struct change {
	struct address to;
	__be16 to_port_be;
	__u8 source; /* the source, or else the destination */
};

static __always_inline __u32 address_offset(int v6, int source)
{
	if (v6)
		return source ? __builtin_offsetof(struct wire_ip6, source) : __builtin_offsetof(struct wire_ip6, dest);
	return source ? __builtin_offsetof(struct wire_ip4, source_be) : __builtin_offsetof(struct wire_ip4, dest_be);
}

/* The address alone, and an IPv4 header's checksum. flags: of the store. */
static __always_inline int address_store(struct __sk_buff *skb, const struct packet *p, const struct change *c, __u64 flags)
{
	const struct address *from = c->source ? &p->source : &p->dest;
	__u32 at = p->l3 + address_offset(p->v6, c->source);

	if (p->v6)
		return !bpf_skb_store_bytes(skb, at, &c->to, 16, flags);
	return !bpf_l3_csum_replace(skb, p->l3 + __builtin_offsetof(struct wire_ip4, check), from->word_be[3], c->to.word_be[3], 4) &&
	       !bpf_skb_store_bytes(skb, at, &c->to.word_be[3], 4, 0);
}

static __always_inline __u32 address_diff(const struct packet *p, const struct change *c)
{
	return sum_fold32(sum_swap_address(0, p->v6, c->source ? &p->source : &p->dest, &c->to));
}

/* The port, and the checksum at check, which covers it. */
static __always_inline int port_store(struct __sk_buff *skb, const struct packet *p, const struct change *c, __u32 check, __u64 flags)
{
	__be16 from_be = c->source ? p->source_port_be : p->dest_port_be;

	if (from_be == c->to_port_be)
		return 1;
	return !bpf_l4_csum_replace(skb, check, from_be, c->to_port_be, flags | 2) &&
	       !bpf_skb_store_bytes(skb, p->l4 + (c->source ? 0 : 2), &c->to_port_be, 2, 0);
}

static __always_inline int rewrite_address(struct __sk_buff *skb, const struct packet *p, const struct change *c)
{
	return address_store(skb, p, c, BPF_F_RECOMPUTE_CSUM);
}

/* TCP or UDP, whole or the first fragment. */
static __always_inline int rewrite(struct __sk_buff *skb, const struct packet *p, const struct change *c)
{
	int tcp = p->protocol == IPPROTO_TCP;
	__u32 check = p->l4 + (tcp ? __builtin_offsetof(struct wire_tcp, check) : __builtin_offsetof(struct wire_udp, check));
	/* A UDP checksum of zero means none and stays; one that becomes zero is
	 * sent as ffff (RFC 768). */
	__u64 flags = tcp ? 0 : BPF_F_MARK_MANGLED_0;

	return !bpf_l4_csum_replace(skb, check, 0, address_diff(p, c), flags | BPF_F_PSEUDO_HDR) &&
	       port_store(skb, p, c, check, flags) && rewrite_address(skb, p, c);
}

/*
 * An ICMP error: outer changes the packet itself, unless null, and inner what
 * it quotes. The checksum inside the quoted packet stays as it is: nobody can
 * check it against a packet that is cut short, and nobody does.
 */
static __always_inline int rewrite_error(struct __sk_buff *skb, const struct packet *p, const struct change *outer, const struct packet *quoted, const struct change *inner)
{
	__u32 check = p->l4 + __builtin_offsetof(struct wire_icmp, check);

	if (outer) {
		if (p->v6 && bpf_l4_csum_replace(skb, check, 0, address_diff(p, outer), BPF_F_PSEUDO_HDR))
			return 0;
		if (!rewrite_address(skb, p, outer))
			return 0;
	}
	/* The quoted IPv4 header's own checksum makes up for its address. */
	if (p->v6 && bpf_l4_csum_replace(skb, check, 0, address_diff(quoted, inner), 0))
		return 0;
	return address_store(skb, quoted, inner, 0) && port_store(skb, quoted, inner, check, 0);
}

/* Reads what an ICMP error quotes. */
static __always_inline int quoted_read(struct __sk_buff *skb, const struct packet *p, struct packet *quoted)
{
	if (!packet_read(skb, p->l4 + sizeof(struct wire_icmp), p->end, p->v6, QUOTED, quoted))
		return 0;
	return quoted->fragment != LATER_FRAGMENT && quoted->l4 + 8 <= p->end &&
	       (quoted->protocol == IPPROTO_TCP || quoted->protocol == IPPROTO_UDP);
}

static __always_inline int is_error(struct __sk_buff *skb, const struct packet *p)
{
	struct wire_icmp icmp;

	if (p->protocol != (p->v6 ? WIRE_ICMP6 : WIRE_ICMP) || p->fragment != WHOLE)
		return 0;
	if (p->l4 + sizeof(icmp) > p->end || bpf_skb_load_bytes(skb, p->l4, &icmp, sizeof(icmp)))
		return 0;
	return wire_icmp_is_error(p->v6, icmp.type);
}

/* How many TCP options are looked at for the MSS; the kernels in use put it
 * first. */
#define OPTIONS 8

/*
 * Lowers the MSS that a SYN or SYN-ACK asks for, so that the client's segments
 * fit the tunnel. It is the backend's that is lowered and not the client's:
 * each end tells what it can receive, and only what goes to the backend is
 * tunnelled; answers go to the client directly, at the size that it said.
 */
static __always_inline int clamp(struct __sk_buff *skb, const struct packet *p, __u16 limit)
{
	__u32 at = p->l4 + sizeof(struct wire_tcp), end;
	__u8 offset, option[4];

	if (bpf_skb_load_bytes(skb, p->l4 + __builtin_offsetof(struct wire_tcp, offset), &offset, 1))
		return 0;
	end = p->l4 + (offset >> 4) * 4;
	for (int i = 0; i < OPTIONS && at + 4 <= end; i++) {
		__u16 mss, wanted = limit;

		if (bpf_skb_load_bytes(skb, at, option, 4) || option[0] == 0)
			return 0;
		if (option[0] == 1) {
			at++;
			continue;
		}
		if (option[0] != 2) {
			if (option[1] < 2)
				return 0;
			at += option[1];
			continue;
		}
		mss = option[2] << 8 | option[3];
		if (option[1] != 4 || mss <= limit)
			return 0;
		option[2] = limit >> 8;
		option[3] = limit & 255;
		mss = bpf_htons(mss);
		wanted = bpf_htons(wanted);
		/* The sum is over words that begin at even offsets. */
		if ((at - p->l4) & 1) {
			mss = __builtin_bswap16(mss);
			wanted = __builtin_bswap16(wanted);
		}
		return !bpf_l4_csum_replace(skb, p->l4 + __builtin_offsetof(struct wire_tcp, check), mss, wanted, 2) &&
		       !bpf_skb_store_bytes(skb, at + 2, option + 2, 2, 0);
	}
	return 0;
}
