// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//go:build ignore

/* Delivery by NAT: the programs to which those of edge.c jump. */
#include "edge_nat.h"

SEC("xdp")
int weir_edge_nat_out_xdp(struct xdp_md *ctx)
{
	return edge_nat_out(ctx, 1);
}

SEC("xdp")
int weir_edge_nat_in_xdp(struct xdp_md *ctx)
{
	return edge_nat_in(ctx, 1);
}

SEC("tcx/ingress")
int weir_edge_nat_out_tcx(struct __sk_buff *ctx)
{
	return edge_nat_out(ctx, 0);
}

SEC("tcx/ingress")
int weir_edge_nat_in_tcx(struct __sk_buff *ctx)
{
	return edge_nat_in(ctx, 0);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
