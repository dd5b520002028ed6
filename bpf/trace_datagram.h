/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Datagrams at a socket, where packets begin with their IP header. */
#pragma once
#include "trace_kernel.h"
#include "trace_drop.h"

struct udp_wire {
	__be16 source_be, destination_be, length_be, checksum_be;
};

static __always_inline int udp_read(struct __sk_buff *skb, __u32 at, struct packet *p)
{
	struct udp_wire udp;

	if (bpf_skb_load_bytes(skb, at, &udp, sizeof(udp)))
		return -1;
	p->source_port_be = udp.source_be;
	p->destination_port_be = udp.destination_be;
	/* Several that were joined have one header, with the length of one. */
	p->payload = skb->len - at - sizeof(udp);
	return 0;
}

/* The first question about every packet, so it is asked without a call. */
static __always_inline int is_udp(const struct __sk_buff *skb)
{
	const __u8 *ip = (const __u8 *)(long)skb->data, *end = (const __u8 *)(long)skb->data_end;

	if (ip + 20 > end)
		return 0;
	if (ip[0] >> 4 == 4)
		return ip[9] == IPPROTO_UDP;
	return ip[0] >> 4 == 6 && ip[6] == IPPROTO_UDP;
}

/* Fails for a fragment without its header. */
static __always_inline int datagram_read(struct __sk_buff *skb, struct packet *p)
{
	__u8 first;
	__be16 fragment_be;

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		if (bpf_skb_load_bytes(skb, 0, &first, 1) || bpf_skb_load_bytes(skb, 6, &fragment_be, 2) ||
		    bpf_ntohs(fragment_be) & 0x1fff)
			return -1;
		address_map4(&p->source, 0);
		address_map4(&p->destination, 0);
		if (bpf_skb_load_bytes(skb, 12, &p->source.word_be[3], 4) || bpf_skb_load_bytes(skb, 16, &p->destination.word_be[3], 4))
			return -1;
		return udp_read(skb, (first & 15) * 4, p);
	}
	if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		if (bpf_skb_load_bytes(skb, 8, &p->source, 16) || bpf_skb_load_bytes(skb, 24, &p->destination, 16))
			return -1;
		return udp_read(skb, 40, p);
	}
	return -1;
}
