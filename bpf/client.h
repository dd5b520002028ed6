/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Who connects. At connect() a socket seldom has an address yet, and asking for
 * the route would cost more than all the rest; so a client is the address that
 * its socket is bound to or, without one, its network namespace: a container,
 * or the node.
 */
#pragma once
#include "maps.h"

static __always_inline void client_read(struct bpf_sock_addr *ctx, int v6, int by_namespace, struct client *c)
{
	struct bpf_sock *sk = by_namespace ? 0 : ctx->sk;

	if (sk && v6) {
		c->id[0] = sk->src_ip6[0] | (__u64)sk->src_ip6[1] << 32;
		c->id[1] = sk->src_ip6[2] | (__u64)sk->src_ip6[3] << 32;
		if (c->id[0] | c->id[1])
			return;
	} else if (sk && sk->src_ip4) {
		c->id[0] = 0;
		c->id[1] = bpf_htonl(0xffff) | (__u64)sk->src_ip4 << 32;
		return;
	}
	/* No address of a host starts with ff: that is multicast. */
	c->id[0] = ~0ULL;
	c->id[1] = bpf_get_netns_cookie(ctx);
}

/* Steps of a finalizer: every bit of x moves about half the bits of the
 * result, of which the upper ones are used. */
static __always_inline __u64 mix(__u64 x)
{
	x ^= x >> 32;
	x *= 0xd6e8feb86659fd93ULL;
	x ^= x >> 32;
	x *= 0xd6e8feb86659fd93ULL;
	return x ^ x >> 32;
}

static __always_inline __u32 client_hash(const struct client *c)
{
	return mix(mix(c->id[0]) + c->id[1]) >> 32;
}
