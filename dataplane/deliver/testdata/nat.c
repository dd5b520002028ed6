// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/* Runs bpf/nat.h alone: plain Ethernet, headers without options, and the
 * backend in a map. */
#include "../../../bpf/nat.h"

struct xdp_md {
	__u32 data;
	__u32 data_end;
};

enum { XDP_DROP = 1, XDP_PASS = 2, XDP_TX = 3 };

struct backend_end {
	struct address addr;
	__be16 port_be;
	__u16 pad;
	__u32 pad2;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct backend_end);
} picked SEC(".maps");

/* A function of its own, whose signature brings the enum into the BTF. */
static __attribute__((noinline)) int action(enum nat_result r)
{
	return r == NAT_NOT_OURS ? XDP_PASS : r == NAT_REWRITTEN ? XDP_TX : XDP_DROP;
}

static __always_inline int packet_of(void *data, void *data_end, struct nat_packet *p)
{
	struct wire_ethernet *eth = data;

	if (data + 14 + 40 > data_end) {
		struct wire_ip4 *ip = data + 14;

		if (data + 14 + sizeof(*ip) > data_end || eth->protocol_be != bpf_htons(WIRE_ETH_IP4))
			return 0;
	}
	p->l3 = 14;
	if (eth->protocol_be == bpf_htons(WIRE_ETH_IP4)) {
		struct wire_ip4 *ip = data + 14;

		p->l4 = 14 + sizeof(*ip);
		p->protocol = ip->protocol;
	} else {
		struct wire_ip6 *ip = data + 14;

		if (data + 14 + sizeof(*ip) > data_end)
			return 0;
		p->l4 = 14 + sizeof(*ip);
		p->protocol = ip->protocol;
		p->v6 = 1;
	}
	return 1;
}

SEC("xdp")
int weir_nat_forward(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *data_end = (void *)(long)ctx->data_end;
	struct nat_packet p = {};
	__u32 zero = 0;
	struct backend_end *b = bpf_map_lookup_elem(&picked, &zero);

	if (!b || !packet_of(data, data_end, &p))
		return XDP_PASS;
	return action(nat_forward(data, data_end, &p, &b->addr, b->port_be));
}

SEC("xdp")
int weir_nat_reply(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *data_end = (void *)(long)ctx->data_end;
	struct nat_packet p = {};

	if (!packet_of(data, data_end, &p))
		return XDP_PASS;
	return action(nat_reply(data, data_end, &p));
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
