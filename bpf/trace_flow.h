/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Flows: who has one, what it goes through, how much may be told of them. */
#pragma once
#include "trace_kernel.h"
#include "trace_maps.h"

/* A time in which events are limited: 134 ms. */
#define WINDOW_SHIFT 27

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

/* The counters of this CPU, at the present time. */
static __always_inline struct trace_count *counts(__u64 now)
{
	__u32 zero = 0;
	struct trace_count *c = bpf_map_lookup_elem(&trace_counts, &zero);

	if (c && c->window != now >> WINDOW_SHIFT) {
		c->window = now >> WINDOW_SHIFT;
		c->flows = 0;
		c->drops = 0;
	}
	return c;
}

/* Whether one more flow may be followed now. */
static __always_inline int flow_admit(struct trace_count *c)
{
	if (!c)
		return 0;
	if (c->flows >= flow_limit) {
		c->skipped++;
		return 0;
	}
	c->flows++;
	return 1;
}

#define MAX_DEPTH 12 /* of a cgroup that is watched */

/* Whether the socket is of the cgroup that is watched. Elsewhere other nodes may
 * have the rest of the machine, as in a lab. */
static __always_inline int flow_watched(const struct sock *sk)
{
	struct cgroup *c, *ancestor;
	struct kernfs_node *kn;
	__u64 id;

	if (!only_cgroup)
		return 1;
	c = sk->sk_cgrp_data.cgroup;
	if (!c)
		return 0;
	if (c->kn->id == only_cgroup)
		return 1;
	for (int i = 0; i < MAX_DEPTH; i++) {
		if (bpf_probe_read_kernel(&ancestor, sizeof(ancestor), &c->ancestors[i]) || !ancestor || ancestor == c)
			return 0;
		if (bpf_probe_read_kernel(&kn, sizeof(kn), &ancestor->kn) || bpf_probe_read_kernel(&id, sizeof(id), &kn->id))
			return 0;
		if (id == only_cgroup)
			return 1;
	}
	return 0;
}

/* The ends of a socket, as far as it has them yet. */
static __always_inline void flow_ends(struct flow *f, const struct sock *sk)
{
	const struct sock_common *c = &sk->__sk_common;

	if (c->skc_family == AF_INET6) {
		for (int i = 0; i < 4; i++) {
			f->local.word_be[i] = c->skc_v6_rcv_saddr.in6_u.u6_addr32[i];
			f->remote.word_be[i] = c->skc_v6_daddr.in6_u.u6_addr32[i];
		}
	} else {
		address_map4(&f->local, c->skc_rcv_saddr);
		address_map4(&f->remote, c->skc_daddr);
	}
	f->local_port_be = bpf_htons(c->skc_num);
	f->remote_port_be = c->skc_dport;
}

static __always_inline void flow_process(struct flow *f)
{
	f->pid = bpf_get_current_pid_tgid() >> 32;
	bpf_get_current_comm(f->command, sizeof(f->command));
}

/* What the balancer remembers of a socket. One that has no place of its own is
 * looked for in the other map only while somebody is in its place. */
static __always_inline struct peer *balanced(void *places, void *displaced, __u64 cookie)
{
	__u32 index = cookie % PLACES;
	struct peer *m = bpf_map_lookup_elem(places, &index);

	if (!m || !m->cookie || m->cookie == cookie)
		return m && m->cookie ? m : 0;
	m = bpf_map_lookup_elem(displaced, &cookie);
	return m && m->cookie == cookie ? m : 0;
}

static __always_inline void flow_vip(struct flow *f, const struct peer *m)
{
	if (!m || !m->backend_id)
		return;
	f->vip = m->vip;
	f->vip_port_be = m->vip_port_be;
}

/* The virtual address of a new flow of UDP, which the packet does not have. */
static __always_inline void datagram_vip(struct flow *f, const struct datagram_flow_key *key)
{
	const struct peer *m = balanced(&peers, &displaced_peers, key->socket);
	const struct backend *b;

	if (!m)
		m = balanced(&correspondents, &displaced_correspondents, key->socket);
	if (!m)
		return;
	b = bpf_map_lookup_elem(&backends, &m->backend_id);
	if (b && b->generation == m->generation && b->port_be == key->port_be && address_equal(&b->addr, &key->remote))
		flow_vip(f, m);
}

static __always_inline void flow_tell(struct trace_count *c, __u64 socket, const struct flow *f)
{
	struct flow_event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);

	if (!e) {
		if (c)
			c->lost++;
		return;
	}
	if (c)
		c->told++;
	e->kind = TRACE_FLOW;
	e->pad = 0;
	e->socket = socket;
	e->flow = *f;
	/* Whoever reads looks by himself often enough; waking him for each event
	 * costs more than all the rest. */
	bpf_ringbuf_submit(e, BPF_RB_NO_WAKEUP);
}
