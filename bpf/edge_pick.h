/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Picks: from a flow to its backend. Every edge node picks the same, so any of
 * them may get any packet: the hash has no seed, and the slots are the fleet's.
 *
 * A slot knows its present backend and the one before. Where there was none before,
 * which is nearly always, the flow needs no memory. Where they differ, a flow
 * that began before the change belongs to the previous backend:
 * - TCP tells: a SYN begins, so it goes to the present one, and is remembered.
 *   What is no SYN and not remembered began earlier.
 * - UDP does not tell. A flow that is not remembered and shows up within
 *   settle_ns after the change counts as one that began earlier, and is
 *   remembered; after that as a new one. A service whose flows may be silent for
 *   longer loses these.
 * A previous backend that is down has no flows. Where both are the same, the change
 * is long past: what is remembered still holds, and nothing more needs to be.
 */
#pragma once
#include "edge_count.h"

/* Part of the contract between edge nodes: who changes it breaks the flows
 * that pass nodes of either version. */
static __always_inline __u64 edge_step(__u64 x, __u64 word)
{
	x = (x ^ word) * 0xd6e8feb86659fd93ULL;
	return x ^ x >> 32;
}

static __always_inline __u64 edge_hash(const struct packet *p)
{
	__u64 x = p->sport_be | (__u64)p->dport_be << 16 | (__u64)p->protocol << 32;

	if (p->v6) {
		x = edge_step(x, p->src.half_be[0]);
		x = edge_step(x, p->src.half_be[1]);
		x = edge_step(x, p->dst.half_be[0]);
		x = edge_step(x, p->dst.half_be[1]);
	} else {
		x = edge_step(x, p->src.word_be[3] | (__u64)p->dst.word_be[3] << 32);
	}
	return edge_step(x, 0);
}

/* Whether the address may be a virtual one: all that other traffic pays for. Set
 * computes the same bit. */
static __always_inline int edge_filter_has(const struct address *a)
{
	__u64 x = (a->half_be[0] ^ a->half_be[1]) * 0xd6e8feb86659fd93ULL;
	__u32 bit = x >> 48, word = bit / 64;
	const __u64 *w = bpf_map_lookup_elem(&edge_filter, &word);

	return w && (*w >> (bit & 63) & 1);
}

/* The backend, if it is the service's and in one of the states from least on. */
static __always_inline struct edge_backend *edge_backend_get(__u32 id, __u32 service, __u32 least)
{
	struct edge_backend *b = bpf_map_lookup_elem(&edge_backends, &id);

	if (!b || b->service != service || b->state < least)
		return 0;
	return b;
}

/* The id of the backend that was remembered, if it is the service's (0: of any), or
 * 0. The check is read last: see struct frontend in layout.h. */
static __always_inline __u32 edge_recall(const struct edge_memory *m, __u64 check, __u32 service)
{
	__u32 id = *(const volatile __u32 *)&m->backend;
	__u32 birth = *(const volatile __u32 *)&m->birth;
	const struct edge_backend *b = bpf_map_lookup_elem(&edge_backends, &id);

	if (b && service && b->service != service)
		return 0;
	return b && b->birth == birth && b->state >= BACKEND_DRAINING && *(const volatile __u64 *)&m->check == check ? id : 0;
}

static __always_inline void edge_remember(void *map, const void *key, __u32 id, __u64 check)
{
	const struct edge_backend *b = bpf_map_lookup_elem(&edge_backends, &id);
	struct edge_memory fresh = { .backend = id, .check = check };

	if (!b)
		return;
	fresh.birth = b->birth;
	bpf_map_update_elem(map, key, &fresh, BPF_ANY);
}

static __always_inline __u32 edge_frontend_service(const struct address *addr, __be16 port_be, __u8 protocol)
{
	struct frontend_key key = { .addr = *addr, .port_be = port_be, .protocol = protocol };
	const __u64 *k = (const __u64 *)&key, *self;

	/* A second look-up finds what the first one lost: see struct frontend. */
	for (int i = 0; i < 2; i++) {
		const struct edge_frontend *f = bpf_map_lookup_elem(&edge_frontends, &key);
		__u32 service;

		if (!f)
			return 0;
		service = *(const volatile __u32 *)&f->service;
		self = (const __u64 *)&f->self;
		if (self[0] == k[0] && self[1] == k[1] && self[2] == k[2])
			return service;
	}
	return 0;
}

static __always_inline int edge_begins(const struct packet *p)
{
	return p->protocol == IPPROTO_TCP && (p->tcp_flags & (WIRE_TCP_SYN | WIRE_TCP_ACK)) == WIRE_TCP_SYN;
}

/* The slot's backend changed lately. A function of its own, so that the hot path
 * stays short. */
static __attribute__((noinline)) __u32 edge_pick_changed(const struct packet *p, const struct edge_service *s, const struct edge_slot *slot, __u32 service, __u64 hash)
{
	struct edge_flow_key key = {
		.src = p->src, .dst = p->dst, .sport_be = p->sport_be, .dport_be = p->dport_be, .protocol = p->protocol,
	};
	__u32 id = slot->current, known;
	const struct edge_memory *m = bpf_map_lookup_elem(&edge_flows, &key);
	struct edge_count *c;

	if (m && !edge_begins(p)) {
		known = edge_recall(m, hash, service);
		if (known)
			return known;
	}
	if (slot->previous == id || !edge_backend_get(slot->previous, service, BACKEND_DRAINING)) {
		/* Nothing to remember where what is unknown goes the same way,
		 * unless an earlier connection of the same ends is remembered. */
		if (!m || !edge_begins(p))
			return id;
	} else if (!edge_begins(p)) {
		if (p->protocol == IPPROTO_UDP && bpf_ktime_get_ns() - s->changed_ns > s->settle_ns)
			return id;
		id = slot->previous;
	}
	/* Not by edge_reason_count, whose call would be one too many for the stack. */
	known = EDGE_CACHED;
	c = bpf_map_lookup_elem(&edge_reasons, &known);
	if (c)
		c->times++;
	edge_remember(&edge_flows, &key, id, hash);
	return id;
}

/* The id of the flow's backend, or 0. */
static __always_inline __u32 edge_pick(const struct packet *p, const struct edge_service *s, __u32 service, __u64 hash)
{
	__u64 run = *(const volatile __u64 *)&s->run;
	__u32 count = (__u32)run, at;
	const struct edge_slot *slot;

	if (!count)
		return 0;
	at = (__u32)(run >> 32) + (__u32)((hash >> 32) * count >> 32);
	slot = bpf_map_lookup_elem(&edge_slots, &at);
	if (!slot)
		return 0;
	if (slot->previous)
		return edge_pick_changed(p, s, slot, service, hash);
	return slot->current;
}
