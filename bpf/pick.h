/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Picks: from where a client connects to the backend that it gets. */
#pragma once
#include "address.h"
#include "client.h"

struct pick {
	__u32 service;
	__u32 backend_id;
	struct backend *backend;
	struct service *record; /* of the service */
};

/* The backend, if it is the service's and in one of the states from least on. */
static __always_inline struct backend *backend_get(__u32 id, __u32 service, __u32 least)
{
	struct backend *b = bpf_map_lookup_elem(&backends, &id);

	if (!b || b->service != service || b->state < least)
		return 0;
	return b;
}

static __always_inline __u32 frontend_service(const struct frontend_key *key)
{
	/* A second look-up finds what the first one lost: see struct frontend. */
	for (int i = 0; i < 3; i++) {
		const struct frontend *f = bpf_map_lookup_elem(&frontends, key);
		__u32 service;

		if (!f)
			return 0;
		service = *(const volatile __u32 *)&f->service;
		if (address_equal(&f->self.addr, &key->addr) && f->self.port_be == key->port_be &&
		    f->self.protocol == key->protocol)
			return service;
	}
	return 0;
}

/* Takes the slot at draw/2^32 of the run. The state is not asked: a slot says
 * that its backend was up when the run was published. */
static __always_inline enum reason slot_take(const struct service *s, __u32 draw, struct pick *p)
{
	__u64 run = *(const volatile __u64 *)&s->run;
	__u32 count = (__u32)run, slot, index;
	struct slot_chunk *chunk;

	if (!count)
		return REASON_NO_BACKEND;
	slot = (__u32)(run >> 32) + (__u32)((__u64)draw * count >> 32);
	index = slot / SLOTS_IN_CHUNK;
	chunk = bpf_map_lookup_elem(&slots, &index);
	if (!chunk)
		return REASON_DAMAGED;
	p->backend_id = chunk->backend[slot % SLOTS_IN_CHUNK];
	p->backend = backend_get(p->backend_id, p->service, BACKEND_ABSENT);
	return p->backend ? REASON_BALANCED : REASON_DAMAGED;
}

static __always_inline __s64 backend_open(const struct backend *b)
{
	return *(const volatile __u64 *)&b->opened - *(const volatile __u64 *)&b->closed;
}

/* Takes the one of two slots whose backend has fewer sockets open. A backend
 * of twice the weight has twice the slots, so it is asked twice as often. */
static __always_inline enum reason p2c_take(const struct service *s, __u32 draw, struct pick *p)
{
	enum reason why = slot_take(s, draw, p);
	struct pick other = *p;

	if (why != REASON_BALANCED || slot_take(s, bpf_get_prandom_u32(), &other) != REASON_BALANCED)
		return why;
	if (backend_open(other.backend) < backend_open(p->backend)) {
		p->backend_id = other.backend_id;
		p->backend = other.backend;
	}
	return why;
}

static __always_inline enum reason draw_take(const struct service *s, __u32 draw, struct pick *p)
{
	return s->balance == BALANCE_P2C ? p2c_take(s, draw, p) : slot_take(s, draw, p);
}

/* Picks for a client that the service should know again. */
static __always_inline enum reason affinity_take(const struct service *s, const struct client *c, __u32 draw, struct pick *p)
{
	struct affinity_key key = { .client = *c, .service = p->service };
	struct affinity *a = bpf_map_lookup_elem(&affinities, &key), fresh = {};
	__u64 now = bpf_ktime_get_coarse_ns();
	enum reason why;

	if (a && now - a->used_ns < s->affinity_ns) {
		p->backend_id = a->backend;
		p->backend = backend_get(p->backend_id, p->service, BACKEND_UP);
		if (p->backend) {
			a->used_ns = now;
			return REASON_BALANCED;
		}
	}
	why = draw_take(s, draw, p);
	if (why != REASON_BALANCED)
		return why;
	fresh.used_ns = now;
	fresh.backend = p->backend_id;
	bpf_map_update_elem(&affinities, &key, &fresh, BPF_ANY);
	return why;
}

/* Fills p for the service p->service. draw is by chance, or the socket's own. */
static __always_inline enum reason service_pick(struct bpf_sock_addr *ctx, int v6, __u32 draw, struct pick *p)
{
	struct service *s = bpf_map_lookup_elem(&services, &p->service);
	struct client c;

	if (!s || !s->balance)
		return REASON_DAMAGED;
	p->record = s;
	if (s->balance == BALANCE_RANDOM && !s->affinity_ns)
		return slot_take(s, draw, p);
	if (s->balance == BALANCE_MAGLEV || s->affinity_ns) {
		client_read(ctx, v6, s->flags & SERVICE_BY_NAMESPACE, &c);
		if (s->balance == BALANCE_MAGLEV)
			draw = client_hash(&c);
		if (s->affinity_ns)
			return affinity_take(s, &c, draw, p);
	}
	return draw_take(s, draw, p);
}

/* Counts one more socket of the service, if it may have one. */
static __always_inline int pick_admit(const struct pick *p)
{
	__s32 limit = p->record->max_open;

	if (!limit)
		return 1;
	if (__sync_fetch_and_add(&p->record->open, 1) < limit)
		return 1;
	__sync_fetch_and_sub(&p->record->open, 1);
	return 0;
}

/* Takes pick_admit back. */
static __always_inline void pick_dismiss(const struct pick *p)
{
	if (p->record->max_open)
		__sync_fetch_and_sub(&p->record->open, 1);
}
