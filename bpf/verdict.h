/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Verdicts: the one place that says yes or no, and counts why. */
#pragma once
#include "maps.h"

enum { REFUSE = 0, PROCEED = 1 };

static __always_inline void reason_count(__u32 reason)
{
	struct reason_count *c = bpf_map_lookup_elem(&reasons, &reason);

	/* Programs can be preempted by others on the same CPU. */
	if (c)
		__sync_fetch_and_add(&c->times, 1);
}

/* A function of its own, so that the hot path stays short and that its
 * signature brings enum reason into the BTF, from where Go has it. */
static __attribute__((noinline)) int refuse(enum reason why, __u32 service)
{
	struct service_count *s;

	reason_count(why);
	if (service) {
		s = bpf_map_lookup_elem(&service_counts, &service);
		if (s)
			__sync_fetch_and_add(why == REASON_LIMITED ? &s->limited : &s->refused, 1);
	}
	/* Without it the caller would see EPERM, which no client expects. It
	 * needs Linux 5.18. */
	bpf_set_retval(-ECONNREFUSED);
	return REFUSE;
}

/* Turns a reason into what the program returns. service is 0 when unknown. */
static __always_inline int verdict(enum reason why, __u32 service)
{
	if (why == REASON_NOT_OURS || why == REASON_BALANCED)
		return PROCEED;
	return refuse(why, service);
}
