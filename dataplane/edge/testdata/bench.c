// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//go:build ignore

/*
 * Wrappers for measuring with PROG_TEST_RUN, which runs a program again and again
 * on one packet: each gives the packet another source port, calls the core and
 * undoes the encapsulation. The rows without the core tell what that costs.
 */
#include "../../../bpf/edge.c"

const volatile __u32 bench_mask;     /* how many flows, less one */
const volatile __u32 bench_size;     /* of the headers that come before the packet */
const volatile __u32 bench_v6;
__u32 bench_count[16];
__u64 bench_bad;

static __always_inline int bench_vary(struct xdp_md *ctx)
{
	void *data = frame_data(ctx, 1), *end = frame_end(ctx, 1);
	struct wire_udp *ports = data + sizeof(struct wire_ethernet) + (bench_v6 ? sizeof(struct wire_ip6) : sizeof(struct wire_ip4));
	__u32 n = bench_count[0]++;

	if ((void *)(ports + 1) > end)
		return 0;
	ports->source_be = (n & bench_mask) ?: 1;
	return 1;
}

/* Puts the Ethernet header where it was before. */
static __always_inline int bench_restore(struct xdp_md *ctx)
{
	struct wire_ethernet *eth = frame_data(ctx, 1);

	if ((void *)(eth + 1) > frame_end(ctx, 1))
		return XDP_DROP;
	*(__u64 *)eth = 0x0002020000000002ULL;
	eth->protocol_be = bench_v6 ? bpf_htons(WIRE_ETH_IP6) : bpf_htons(WIRE_ETH_IP4);
	return XDP_TX;
}

SEC("xdp")
int bench_pass(struct xdp_md *ctx)
{
	return XDP_PASS;
}

SEC("xdp")
int bench_wrapper(struct xdp_md *ctx)
{
	if (!bench_vary(ctx) || bpf_xdp_adjust_head(ctx, -(int)bench_size) || bpf_xdp_adjust_head(ctx, (int)bench_size))
		return XDP_DROP;
	return bench_restore(ctx);
}

SEC("xdp")
int bench_deliver(struct xdp_md *ctx)
{
	if (!bench_vary(ctx))
		return XDP_DROP;
	if (edge(ctx, 1) != XDP_TX) {
		bench_bad++;
		return XDP_DROP;
	}
	if (bpf_xdp_adjust_head(ctx, (int)bench_size))
		return XDP_DROP;
	return bench_restore(ctx);
}
