// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//go:build ignore

/*
 * A wrapper for measuring with PROG_TEST_RUN, which runs a program again and again
 * on one packet: it makes the query anew behind each answer. bench_wrapper tells
 * what that alone costs.
 */
#include "../../../bpf/dns_answer.c"

struct bench {
	__u64 frame[40];
};

/* The query. Key: 0. Writer: the benchmark. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct bench);
} bench_frame SEC(".maps");

const volatile __u32 bench_size; /* of the query's frame */

static __always_inline int restore(struct __sk_buff *skb)
{
	__u32 zero = 0;
	const struct bench *b = bpf_map_lookup_elem(&bench_frame, &zero);
	__u64 size = bench_size;

	if (!b || size < 1 || size > sizeof(b->frame) || bpf_skb_change_tail(skb, size, 0))
		return 1;
	return bpf_skb_store_bytes(skb, 0, b->frame, size, 0);
}

SEC("tcx/ingress")
int bench_answer(struct __sk_buff *skb)
{
	int word = dns_answer(skb);

	return word == TCX_NEXT || restore(skb) ? TCX_NEXT : word;
}

SEC("tcx/ingress")
int bench_wrapper(struct __sk_buff *skb)
{
	return restore(skb) ? TCX_NEXT : 7;
}
