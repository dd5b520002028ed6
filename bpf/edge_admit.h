/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Admits: whether a service takes this client, and one more connection. */
#pragma once
#include "edge_count.h"

static __always_inline int edge_client_allowed(__u32 service, const struct address *client)
{
	struct edge_allow_key key = { .bits = 32 + 128, .service_be = bpf_htonl(service), .net = *client };

	return !!bpf_map_lookup_elem(&edge_allowed, &key);
}

/*
 * A token bucket in one word: the time at which the latest connection would have
 * been due at the service's rate. It is one for all CPUs, because the share of
 * each is the NIC's choice; while connections are shed nobody writes it.
 *
 * SYN cookies are no alternative here: whoever makes one must also judge the ACK
 * that brings it back and then speak for the backend, but answers go from the
 * backend to the client without passing here, and its kernel knows a secret of
 * its own. The backend's own cookies work through the tunnel as ever.
 */
static __always_inline int edge_syn_admitted(__u32 service, const struct edge_service *s)
{
	struct edge_syn *y = bpf_map_lookup_elem(&edge_syns, &service);
	__u64 now, due, next;

	if (!y)
		return 1;
	now = bpf_ktime_get_ns();
	/* Bounded: who loses the race four times is let in. */
	for (int i = 0; i < 4; i++) {
		due = *(volatile __u64 *)&y->due_ns;
		next = due;
		if (next + s->syn_burst_ns < now || next > now + s->syn_burst_ns + s->syn_ns)
			next = now - s->syn_burst_ns;
		if (next > now)
			return 0;
		if (__sync_val_compare_and_swap(&y->due_ns, due, next + s->syn_ns) == due)
			return 1;
	}
	return 1;
}
