/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Counters, and the end of packets that are not delivered. Packet programs are
 * not preempted by others on their CPU, so plain additions do.
 */
#pragma once
#include "edge_frame.h"

/* Its signature brings enum edge_reason into the BTF, from where Go has it. */
static __attribute__((noinline)) int edge_reason_count(enum edge_reason why)
{
	__u32 key = why;
	struct edge_count *c = bpf_map_lookup_elem(&edge_reasons, &key);

	if (c)
		c->times++;
	return 0;
}

static __attribute__((noinline)) int edge_refused_count(__u32 service)
{
	struct edge_service_count *c = bpf_map_lookup_elem(&edge_service_counts, &service);

	if (c && service)
		c->refused++;
	return 0;
}

static __always_inline int edge_drop(const int xdp, enum edge_reason why, __u32 service)
{
	edge_reason_count(why);
	if (service)
		edge_refused_count(service);
	return FRAME_DROP(xdp);
}

static __always_inline void edge_delivered_count(__u32 service, __u32 bytes)
{
	struct edge_service_count *c = bpf_map_lookup_elem(&edge_service_counts, &service);

	if (!c)
		return;
	c->packets++;
	c->bytes += bytes;
}

static __always_inline void edge_begun_count(__u32 service)
{
	struct edge_service_count *c = bpf_map_lookup_elem(&edge_service_counts, &service);

	if (c)
		c->flows++;
}
