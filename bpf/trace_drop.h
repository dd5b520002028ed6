/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Dropped packets: whose they were, and why. */
#pragma once
#include "trace_kernel.h"
#include "trace_maps.h"
#include "trace_flow.h"

/* What a packet's headers say, as far as they are there. */
struct packet {
	struct address source, destination;
	__be16 source_port_be, destination_port_be;
	__u16 payload; /* of UDP, bytes */
	__u8 protocol;
	__u8 tcp_flags;
};

#define NO_HEADER 0xffff /* the kernel's mark of an offset that is not set */

struct ports_wire {
	__be16 source_be, destination_be;
	__u8 middle[9];
	__u8 tcp_flags;
};

/* The ports, of protocols that have them. */
static __always_inline void ports_read(const unsigned char *at, struct packet *p)
{
	struct ports_wire wire = {};

	if (p->protocol != IPPROTO_TCP && p->protocol != IPPROTO_UDP)
		return;
	if (bpf_probe_read_kernel(&wire, 4, at))
		return;
	p->source_port_be = wire.source_be;
	p->destination_port_be = wire.destination_be;
	if (p->protocol == IPPROTO_TCP && !bpf_probe_read_kernel(&wire, sizeof(wire), at))
		p->tcp_flags = wire.tcp_flags;
}

static __always_inline int packet4_read(const unsigned char *at, struct packet *p)
{
	__u8 ip[20];

	if (bpf_probe_read_kernel(ip, sizeof(ip), at) || ip[0] >> 4 != 4)
		return -1;
	p->protocol = ip[9];
	address_map4(&p->source, *(__be32 *)(ip + 12));
	address_map4(&p->destination, *(__be32 *)(ip + 16));
	/* A later fragment has no ports. */
	if (!(bpf_ntohs(*(__be16 *)(ip + 6)) & 0x1fff))
		ports_read(at + (ip[0] & 15) * 4, p);
	return 0;
}

/* Extension headers are not gone through: such a packet is told without ports. */
static __always_inline int packet6_read(const unsigned char *at, struct packet *p)
{
	__u8 ip[40];

	if (bpf_probe_read_kernel(ip, sizeof(ip), at) || ip[0] >> 4 != 6)
		return -1;
	p->protocol = ip[6];
	for (int i = 0; i < 4; i++) {
		p->source.word_be[i] = *(__be32 *)(ip + 8 + 4 * i);
		p->destination.word_be[i] = *(__be32 *)(ip + 24 + 4 * i);
	}
	ports_read(at + 40, p);
	return 0;
}

static __always_inline int packet_read(struct sk_buff *skb, struct packet *p)
{
	__u16 offset = skb->network_header;

	if (offset == NO_HEADER)
		return -1;
	if (skb->protocol == bpf_htons(ETH_P_IP))
		return packet4_read(skb->head + offset, p);
	if (skb->protocol == bpf_htons(ETH_P_IPV6))
		return packet6_read(skb->head + offset, p);
	return -1;
}

/* Where it was, and whose socket had sent it. */
static __always_inline void drop_place(struct drop_event *e, struct sk_buff *skb)
{
	struct net_device *dev = skb->dev;
	struct sock *sk = skb->sk;
	__u64 key = (__u64)sk;
	struct flow *f;

	if (dev) {
		e->ifindex = dev->ifindex;
		e->netns = dev->nd_net.net->ns.inum;
		bpf_probe_read_kernel_str(e->interface, sizeof(e->interface), dev->name);
	} else if (sk) {
		e->netns = sk->__sk_common.skc_net.net->ns.inum;
	}
	if (!sk)
		return;
	f = bpf_map_lookup_elem(&flows, &key);
	if (!f)
		return;
	e->pid = f->pid;
	__builtin_memcpy(e->command, f->command, sizeof(e->command));
}

static __always_inline void drop(struct sk_buff *skb, __u32 reason)
{
	__u32 index = reason < DROP_REASONS ? reason : DROP_REASONS - 1;
	__u32 slot = index;
	__u64 *total, now;
	struct trace_count *c;
	struct drop_event *e;
	struct packet p = {};
	__be16 ether_be = skb->protocol;

	/* Netlink and Unix sockets throw their buffers away by the same way. */
	if (ether_be != bpf_htons(ETH_P_IP) && ether_be != bpf_htons(ETH_P_IPV6) && ether_be != bpf_htons(ETH_P_ARP))
		return;
	/* The compiler knows the bound and would leave the mask out, by which the
	 * verifier knows it. */
	asm volatile("" : "+r"(slot));
	if (everyday[slot & (DROP_REASONS - 1)])
		return;
	total = bpf_map_lookup_elem(&drop_counts, &index);
	if (total)
		(*total)++;
	now = bpf_ktime_get_ns();
	c = counts(now);
	if (!c)
		return;
	if (c->drops >= drop_limit) {
		c->unlisted++;
		return;
	}
	c->drops++;
	packet_read(skb, &p);
	e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e) {
		c->lost++;
		return;
	}
	c->told++;
	__builtin_memset(e, 0, sizeof(*e));
	e->kind = TRACE_DROP;
	e->reason = reason;
	e->time_ns = now;
	e->source = p.source;
	e->destination = p.destination;
	e->source_port_be = p.source_port_be;
	e->destination_port_be = p.destination_port_be;
	e->ether_be = ether_be;
	e->protocol = p.protocol;
	e->tcp_flags = p.tcp_flags;
	e->length = skb->len;
	drop_place(e, skb);
	bpf_ringbuf_submit(e, BPF_RB_NO_WAKEUP);
}
