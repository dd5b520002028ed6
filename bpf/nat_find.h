/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Finds the port of a flow, or gives it one. */
#pragma once
#include "nat_layout.h"

/* How long nobody gets the port of a flow that is silent. Linux keeps a closed
 * connection for 60 s (TIME_WAIT); RFC 5382 wants open ones kept for 2 h 4 min,
 * RFC 4787 UDP for 5 min. An unanswered flow may be a flood's. */
static __always_inline int nat_is_over(const struct nat_flow *f, __u64 now)
{
	__u64 seconds = 60;

	if (f->state & NAT_RESET)
		seconds = 10;
	else if ((f->state & (NAT_CLIENT_FIN | NAT_BACKEND_FIN)) == (NAT_CLIENT_FIN | NAT_BACKEND_FIN) || !(f->state & NAT_ANSWERED))
		seconds = 60;
	else
		seconds = f->self.protocol == IPPROTO_TCP ? 7440 : 300;
	return now - f->used_ns > seconds * NAT_SECOND;
}

static __always_inline int nat_key_equal(const struct nat_key *a, const struct nat_key *b)
{
	return wire_address_equal(&a->backend, &b->backend) & (a->backend_port_be == b->backend_port_be) &
	       (a->port_be == b->port_be) & (a->protocol == b->protocol);
}

static __always_inline void nat_touch(struct nat_flow *f, __u64 now, __u32 set, __u32 clear)
{
	if ((f->state & (set | clear)) != set)
		f->state = (f->state & ~clear) | set;
	/* Written seldom, so that CPUs do not fight for the line. */
	if (now - f->used_ns > NAT_SECOND)
		f->used_ns = now;
}

struct nat_search {
	struct nat_key key; /* port_be is the result */
	struct address client;
	struct address vip;
	__be16 client_port_be;
	__be16 vip_port_be;
	struct nat_way back;
	__u32 first;
	__u32 ports;
	__u32 set;      /* state bits that this packet sets */
	__u32 begins;   /* a SYN: what an earlier connection left does not count */
	__u32 allocate; /* whether a new flow may begin */
	/* While it goes on: */
	__u64 now;
	__u32 at;
	__u32 result;
	__u32 free; /* the first port that may be taken; 0: none yet */
	__u32 over; /* it is that of a flow which is over */
};

/* The client's packets may come another way from now on. Errors tell nothing. */
static __always_inline void nat_way_learn(struct nat_flow *f, const struct nat_way *back)
{
	const __u32 *new = (const __u32 *)back, *old = (const __u32 *)&f->back;

	if (back->ifindex && ((new[0] ^ old[0]) | (new[1] ^ old[1]) | (new[2] ^ old[2]) | (new[3] ^ old[3]) | (new[4] ^ old[4])))
		f->back = *back;
}

static __always_inline __u32 nat_hash(const struct nat_search *s)
{
	__u64 h = s->client.half_be[0] ^ s->vip.half_be[0];

	h = (h ^ h >> 32) * 0xd6e8feb86659fd93ULL + s->client.half_be[1];
	h = (h ^ h >> 32) * 0xd6e8feb86659fd93ULL + s->vip.half_be[1];
	h = (h ^ h >> 32) * 0xd6e8feb86659fd93ULL + ((__u32)s->client_port_be << 16 | s->vip_port_be);
	h = (h ^ h >> 32) * 0xd6e8feb86659fd93ULL;
	return h >> 32;
}

static __always_inline int nat_is_of(const struct nat_flow *f, const struct nat_search *s)
{
	return (f->client_port_be == s->client_port_be) & (f->vip_port_be == s->vip_port_be) &
	       wire_address_equal(&f->client, &s->client) & wire_address_equal(&f->vip, &s->vip) &
	       nat_key_equal(&f->self, &s->key);
}

/* Takes the port in s->key. Of two CPUs that want it one gets it. */
static __always_inline int nat_take(const struct nat_search *s, __u64 now)
{
	__u32 zero = 0;
	struct nat_flow *fresh = bpf_map_lookup_elem(&nat_fresh, &zero);

	if (!fresh)
		return 0;
	fresh->self = s->key;
	fresh->client = s->client;
	fresh->vip = s->vip;
	fresh->client_port_be = s->client_port_be;
	fresh->vip_port_be = s->vip_port_be;
	fresh->state = s->set;
	fresh->used_ns = now;
	fresh->back = s->back;
	return bpf_map_update_elem(&nat_flows, &s->key, fresh, 1 /* BPF_NOEXIST */) == 0;
}

/* Looks at one port; 1 ends the search. */
static long nat_probe(__u32 index, struct nat_search *s)
{
	__u32 port = s->first + s->at;
	struct nat_flow *f;

	s->key.port_be = bpf_htons(port);
	f = bpf_map_lookup_elem(&nat_flows, &s->key);
	if (f && nat_is_of(f, s)) {
		nat_touch(f, s->now, s->set, s->begins ? NAT_CLIENT_FIN | NAT_BACKEND_FIN | NAT_RESET : 0);
		nat_way_learn(f, &s->back);
		s->result = NAT_REWRITTEN;
		return 1;
	}
	if (!s->free && (!f || nat_is_over(f, s->now))) {
		s->free = port;
		s->over = !!f;
		if (s->begins)
			return 1;
	}
	s->at++;
	if (s->at >= s->ports)
		s->at = 0;
	return index + 1 >= s->ports;
}

/*
 * Finds the flow's port, or gives it one: the places to look are the same each
 * time. A SYN takes the first that is free; other packets look everywhere
 * before they begin a flow, since theirs may lie behind one that ended.
 * bpf_loop (Linux 5.17) has the verifier look at the body once, not 32 times.
 */
static __attribute__((noinline)) int nat_find(struct nat_search *s)
{
	s->now = bpf_ktime_get_coarse_ns();
	s->at = s->ports ? nat_hash(s) % s->ports : 0;
	bpf_loop(NAT_PROBES, nat_probe, s, 0);
	if (s->result)
		return s->result;
	if (!s->allocate)
		return NAT_UNKNOWN;
	if (!s->free)
		return NAT_EXHAUSTED;
	s->key.port_be = bpf_htons(s->free);
	if (s->over)
		bpf_map_delete_elem(&nat_flows, &s->key);
	/* Who loses the race sends again and finds another place. */
	return nat_take(s, s->now) ? NAT_ALLOCATED : NAT_EXHAUSTED;
}
