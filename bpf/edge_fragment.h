/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Fragments: the first has the ports and is balanced like any packet; the others
 * follow it. One that overtakes its first is lost, as is one that comes to another
 * edge node.
 */
#pragma once
#include "edge_pick.h"

static __always_inline void fragment_key_fill(struct edge_fragment_key *key, const struct packet *p)
{
	key->src = p->src;
	key->dst = p->dst;
	key->id_be = p->fragment_id_be;
	key->protocol = p->protocol;
}

static __always_inline __u64 fragment_check(const struct edge_fragment_key *key)
{
	return key->id_be | (__u64)key->src.word_be[3] << 32;
}

static __attribute__((noinline)) int fragment_remember(const struct packet *p, __u32 id)
{
	struct edge_fragment_key key = {};

	fragment_key_fill(&key, p);
	edge_remember(&edge_fragments, &key, id, fragment_check(&key));
	return 0;
}

/* The id of the backend that the first fragment went to, or 0. */
static __attribute__((noinline)) __u32 fragment_follow(const struct packet *p)
{
	struct edge_fragment_key key = {};
	const struct edge_memory *m;

	fragment_key_fill(&key, p);
	m = bpf_map_lookup_elem(&edge_fragments, &key);
	return m ? edge_recall(m, fragment_check(&key), 0) : 0;
}
