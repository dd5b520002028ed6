/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Addresses: reading and writing those of a system call. */
#pragma once
#include "maps.h"

static __always_inline void address_map4(struct address *a, __be32 ip4_be)
{
	a->half_be[0] = 0;
	a->word_be[2] = bpf_htonl(0xffff);
	a->word_be[3] = ip4_be;
}

static __always_inline int address_equal(const struct address *a, const struct address *b)
{
	return a->half_be[0] == b->half_be[0] && a->half_be[1] == b->half_be[1];
}

static __always_inline void address_read(const struct bpf_sock_addr *ctx, int v6, struct address *a)
{
	if (v6) {
		a->word_be[0] = ctx->user_ip6[0];
		a->word_be[1] = ctx->user_ip6[1];
		a->word_be[2] = ctx->user_ip6[2];
		a->word_be[3] = ctx->user_ip6[3];
	} else {
		address_map4(a, ctx->user_ip4);
	}
}

/* A backend has the family of its service, so an IPv4 address never gets an
 * IPv6 backend, and an IPv4-mapped one gets a mapped backend. */
static __always_inline void address_write(struct bpf_sock_addr *ctx, int v6, const struct address *a, __be16 port_be)
{
	if (v6) {
		ctx->user_ip6[0] = a->word_be[0];
		ctx->user_ip6[1] = a->word_be[1];
		ctx->user_ip6[2] = a->word_be[2];
		ctx->user_ip6[3] = a->word_be[3];
	} else {
		ctx->user_ip4 = a->word_be[3];
	}
	ctx->user_port = port_be;
}

static __always_inline __be16 port_read(const struct bpf_sock_addr *ctx)
{
	return (__be16)ctx->user_port;
}

/* Whether the address is a virtual one: all that other traffic pays for. */
static __always_inline int address_is_virtual(const struct address *a)
{
	__u32 zero = 0;
	struct ranges *r = bpf_map_lookup_elem(&ranges, &zero);

	if (!r)
		return 0;
	for (int i = 0; i < MAX_RANGES; i++) {
		const struct range *e = &r->entry[i];

		if (i >= r->count)
			break;
		if ((a->half_be[0] & e->mask.half_be[0]) == e->net.half_be[0] &&
		    (a->half_be[1] & e->mask.half_be[1]) == e->net.half_be[1])
			return 1;
	}
	return r->literals && bpf_map_lookup_elem(&addresses, a);
}
