/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * What sockets remember: their virtual peers, to show them again.
 *
 * Each map of peers is an array of places with a hash for the sockets whose
 * place is taken. The kernel's own storage for sockets allocates memory at every
 * connect(), which costs four times as much as all the rest of the program.
 */
#pragma once
#include "address.h"
#include "pick.h"
#include "verdict.h"

/* One kind of memory: places, the hash beside them, and who is counted there. */
struct memory {
	void *places, *others;
	int correspondents;
};

#define PEERS ((struct memory){ &peers, &displaced_peers, 0 })
#define CORRESPONDENTS ((struct memory){ &correspondents, &displaced_correspondents, 1 })

static __always_inline struct peer *place_get(struct memory in, __u64 cookie)
{
	__u32 index = cookie % PLACES;

	return bpf_map_lookup_elem(in.places, &index);
}

static __always_inline __u32 *displaced_count(struct memory in)
{
	__u32 zero = 0;
	struct displaced *d = bpf_map_lookup_elem(&displaced, &zero);

	if (!d)
		return 0;
	return in.correspondents ? &d->correspondents : &d->peers;
}

/* The peer of a socket that has no place. */
static __always_inline struct peer *other_get(struct memory in, __u64 cookie)
{
	__u32 *count = displaced_count(in);
	struct peer *m;

	if (!count || !*count)
		return 0;
	m = bpf_map_lookup_elem(in.others, &cookie);
	return m && m->cookie == cookie ? m : 0;
}

static __always_inline struct peer *peer_get(struct memory in, __u64 cookie)
{
	struct peer *m = place_get(in, cookie);

	if (!m || m->cookie == cookie)
		return m;
	return other_get(in, cookie);
}

/* The socket's peer, to be filled. */
static __always_inline struct peer *peer_take(struct memory in, __u64 cookie)
{
	struct peer *m = place_get(in, cookie), *other, fresh = {};
	__u32 *count;

	if (!m || m->cookie == cookie)
		return m;
	other = other_get(in, cookie);
	if (other)
		return other;
	if (!__sync_val_compare_and_swap(&m->cookie, 0, cookie)) {
		m->backend_id = 0;
		return m;
	}
	fresh.cookie = cookie;
	count = displaced_count(in);
	if (count)
		__sync_fetch_and_add(count, 1);
	bpf_map_update_elem(in.others, &cookie, &fresh, BPF_ANY);
	return bpf_map_lookup_elem(in.others, &cookie);
}

/* The backend that the peer is counted at, unless the id is another's now. */
static __always_inline struct backend *peer_backend(const struct peer *m)
{
	struct backend *b;

	if (!m->backend_id)
		return 0;
	b = bpf_map_lookup_elem(&backends, &m->backend_id);
	return b && b->generation == m->generation ? b : 0;
}

/* Counts the socket out of the open ones. */
static __always_inline void peer_uncount(struct peer *m)
{
	struct backend *b = peer_backend(m);
	struct service *s;

	if (b) {
		__sync_fetch_and_add(&b->closed, 1);
		s = bpf_map_lookup_elem(&services, &b->service);
		if (s && s->max_open)
			__sync_fetch_and_sub(&s->open, 1);
	}
	m->backend_id = 0;
}

static __always_inline void peer_forget(struct memory in, __u64 cookie)
{
	struct peer *m = place_get(in, cookie);
	__u32 *count;

	if (!m)
		return;
	if (m->cookie == cookie) {
		peer_uncount(m);
		*(volatile __u64 *)&m->cookie = 0;
		return;
	}
	m = other_get(in, cookie);
	if (!m)
		return;
	peer_uncount(m);
	count = displaced_count(in);
	if (count && !bpf_map_delete_elem(in.others, &cookie))
		__sync_fetch_and_sub(count, 1);
}

/* Makes the pick, which was admitted, the peer, and counts it. */
static __always_inline void peer_fill(struct peer *m, const struct frontend_key *vip, const struct pick *p)
{
	if (m->backend_id)
		peer_uncount(m);
	__sync_fetch_and_add(&p->backend->opened, 1);
	m->vip = vip->addr;
	m->vip_port_be = vip->port_be;
	m->generation = p->backend->generation;
	m->backend_id = p->backend_id;
}

/* Counts a pick for which there is no memory. */
static __always_inline void peer_missing(const struct pick *p)
{
	__sync_fetch_and_add(&p->backend->opened, 1);
	__sync_fetch_and_add(&p->backend->closed, 1);
	pick_dismiss(p);
	reason_count(REASON_UNREMEMBERED);
}

static __always_inline int peer_is_backend(const struct peer *m, const struct address *a, __be16 port_be)
{
	const struct backend *b;

	if (!m)
		return 0;
	b = peer_backend(m);
	return b && b->port_be == port_be && address_equal(&b->addr, a);
}

static __always_inline int peer_is_vip(const struct peer *m, const struct frontend_key *vip)
{
	return m->vip_port_be == vip->port_be && address_equal(&m->vip, &vip->addr);
}

static __always_inline void datagram_key_fill(struct datagram_key *key, __u64 cookie, const struct backend *b)
{
	key->cookie = cookie;
	key->backend = b->addr;
	key->backend_port_be = b->port_be;
}

/* Keeps what the socket's correspondent was: its answers may be under way. */
static __always_inline void correspondent_keep(const struct peer *m, __u64 cookie)
{
	const struct backend *b = peer_backend(m);
	struct datagram_key key = {};
	struct datagram old = {};

	if (!b)
		return;
	datagram_key_fill(&key, cookie, b);
	old.vip = m->vip;
	old.vip_port_be = m->vip_port_be;
	old.cookie = cookie;
	bpf_map_update_elem(&datagrams, &key, &old, BPF_ANY);
}

/* Makes the pick the socket's correspondent, in the place of an earlier one, m. */
static __always_inline void correspondent_remember(struct peer *m, __u64 cookie, const struct frontend_key *vip, const struct pick *p)
{
	struct datagram_key key = {};
	struct datagram *known;
	int first = !m;

	if (m)
		correspondent_keep(m, cookie);
	else
		m = peer_take(CORRESPONDENTS, cookie);
	if (!m) {
		peer_missing(p);
		return;
	}
	peer_fill(m, vip, p);
	if (first)
		return;
	datagram_key_fill(&key, cookie, p->backend);
	known = bpf_map_lookup_elem(&datagrams, &key);
	if (known && known->vip_port_be == vip->port_be && address_equal(&known->vip, &vip->addr))
		__sync_fetch_and_add(&p->backend->repeats, 1);
}

static __always_inline int backend_is_watched(const struct backend *b)
{
	const struct service *s = bpf_map_lookup_elem(&services, &b->service);

	return s && s->flags & SERVICE_WATCH;
}

/* Counts that the socket's connection did not open. */
static __always_inline void failure_count(__u64 cookie)
{
	struct peer *m = peer_get(PEERS, cookie);
	struct backend *b = m ? peer_backend(m) : 0;

	if (b && backend_is_watched(b))
		__sync_fetch_and_add(&b->failures, 1);
}
