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

static __always_inline struct peer *place_get(void *places, __u64 cookie)
{
	__u32 index = cookie % PLACES;

	return bpf_map_lookup_elem(places, &index);
}

static __always_inline struct peer *peer_get(void *places, void *displaced, __u64 cookie)
{
	struct peer *m = place_get(places, cookie);

	if (!m || m->cookie == cookie)
		return m;
	if (!m->displaced)
		return 0;
	m = bpf_map_lookup_elem(displaced, &cookie);
	return m && m->cookie == cookie ? m : 0;
}

/* The socket's peer, to be filled. */
static __always_inline struct peer *peer_take(void *places, void *displaced, __u64 cookie)
{
	struct peer *m = place_get(places, cookie), *other, fresh = {};

	if (!m || m->cookie == cookie)
		return m;
	if (m->displaced) {
		other = bpf_map_lookup_elem(displaced, &cookie);
		if (other)
			return other;
	}
	if (!__sync_val_compare_and_swap(&m->cookie, 0, cookie)) {
		m->backend_id = 0;
		return m;
	}
	fresh.cookie = cookie;
	__sync_fetch_and_add(&m->displaced, 1);
	bpf_map_update_elem(displaced, &cookie, &fresh, BPF_ANY);
	return bpf_map_lookup_elem(displaced, &cookie);
}

/* The backend that the peer is counted at, unless the id is another's now. */
static __always_inline struct backend *peer_backend(const struct peer *m)
{
	struct backend *b = bpf_map_lookup_elem(&backends, &m->backend_id);

	if (!b || b->service != m->service || b->port_be != m->backend_port_be || !address_equal(&b->addr, &m->backend))
		return 0;
	return b;
}

/* Counts the socket out of the open ones. */
static __always_inline void peer_uncount(struct peer *m)
{
	struct backend *b;
	struct service *s;

	if (!m->backend_id)
		return;
	b = peer_backend(m);
	if (b)
		__sync_fetch_and_add(&b->closed, 1);
	s = bpf_map_lookup_elem(&services, &m->service);
	if (s && s->max_open)
		__sync_fetch_and_sub(&s->open, 1);
	m->backend_id = 0;
}

static __always_inline void peer_forget(void *places, void *displaced, __u64 cookie)
{
	struct peer *m = place_get(places, cookie), *other;

	if (!m)
		return;
	if (m->cookie == cookie) {
		peer_uncount(m);
		*(volatile __u64 *)&m->cookie = 0;
	} else if (m->displaced) {
		other = bpf_map_lookup_elem(displaced, &cookie);
		if (!other)
			return;
		peer_uncount(other);
		if (!bpf_map_delete_elem(displaced, &cookie))
			__sync_fetch_and_sub(&m->displaced, 1);
	}
}

/* Makes the pick, which was admitted, the peer, and counts it. */
static __always_inline void peer_fill(struct peer *m, const struct frontend_key *vip, const struct pick *p)
{
	peer_uncount(m);
	__sync_fetch_and_add(&p->backend->opened, 1);
	m->vip = vip->addr;
	m->vip_port_be = vip->port_be;
	m->backend = p->backend->addr;
	m->backend_port_be = p->backend->port_be;
	m->backend_id = p->backend_id;
	m->service = p->service;
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
	return m && m->backend_port_be == port_be && address_equal(&m->backend, a);
}

static __always_inline int peer_is_vip(const struct peer *m, const struct frontend_key *vip)
{
	return m->vip_port_be == vip->port_be && address_equal(&m->vip, &vip->addr);
}

static __always_inline void datagram_key_fill(struct datagram_key *key, const struct peer *m)
{
	key->cookie = m->cookie;
	key->backend = m->backend;
	key->backend_port_be = m->backend_port_be;
}

/*
 * Makes the pick the socket's correspondent. An earlier one, m, goes to
 * datagrams, since its answers may be under way.
 */
static __always_inline void correspondent_remember(struct peer *m, __u64 cookie, const struct frontend_key *vip, const struct pick *p)
{
	struct datagram_key key = {};
	struct datagram old = {}, *known;
	int first = !m;

	if (m) {
		datagram_key_fill(&key, m);
		old.vip = m->vip;
		old.vip_port_be = m->vip_port_be;
		old.cookie = cookie;
		bpf_map_update_elem(&datagrams, &key, &old, BPF_ANY);
	} else {
		m = peer_take(&correspondents, &displaced_correspondents, cookie);
	}
	if (!m) {
		peer_missing(p);
		return;
	}
	peer_fill(m, vip, p);
	if (first)
		return;
	datagram_key_fill(&key, m);
	known = bpf_map_lookup_elem(&datagrams, &key);
	if (known && known->vip_port_be == vip->port_be && address_equal(&known->vip, &vip->addr))
		__sync_fetch_and_add(&p->backend->repeats, 1);
}

static __always_inline int peer_is_watched(const struct peer *m)
{
	const struct service *s = bpf_map_lookup_elem(&services, &m->service);

	return s && s->flags & SERVICE_WATCH;
}

/* Counts that the socket's connection did not open. */
static __always_inline void failure_count(__u64 cookie)
{
	struct peer *m = peer_get(&peers, &displaced_peers, cookie);
	struct backend *b;

	if (!m || !m->backend_id || !peer_is_watched(m))
		return;
	b = peer_backend(m);
	if (b)
		__sync_fetch_and_add(&b->failures, 1);
}
