/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * A frame at XDP or at TCX, behind one set of functions: xdp is a constant in
 * every one of them, so that the compiler keeps one half.
 */
#pragma once
#include "edge_maps.h"

struct xdp_md {
	__u32 data;
	__u32 data_end;
	__u32 data_meta;
	__u32 ingress_ifindex;
	__u32 rx_queue_index;
	__u32 egress_ifindex;
};

struct __sk_buff {
	__u32 len;
	__u32 pkt_type;
	__u32 mark;
	__u32 queue_mapping;
	__u32 protocol;
	__u32 vlan_present;
	__u32 vlan_tci;
	__u32 vlan_proto;
	__u32 priority;
	__u32 ingress_ifindex;
	__u32 ifindex;
	__u32 tc_index;
	__u32 cb[5];
	__u32 hash;
	__u32 tc_classid;
	__u32 data;
	__u32 data_end;
	__u32 napi_id;
	__u32 family;
	__u32 remote_ip4;
	__u32 local_ip4;
	__u32 remote_ip6[4];
	__u32 local_ip6[4];
	__u32 remote_port;
	__u32 local_port;
	__u32 data_meta;
	__u64 flow_keys;
	__u64 tstamp;
	__u32 wire_len;
	__u32 gso_segs;
	__u64 sk;
	__u32 gso_size;
	__u32 pad;
};

enum {
	XDP_DROP = 1,
	XDP_PASS = 2,
	XDP_TX = 3,
	TCX_NEXT = -1,
	TCX_DROP = 2,
};

enum {
	BPF_ADJ_ROOM_MAC = 1,
	BPF_F_ADJ_ROOM_FIXED_GSO = 1U << 0,
	BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 = 1U << 1,
	BPF_F_ADJ_ROOM_ENCAP_L3_IPV6 = 1U << 2,
	BPF_F_ADJ_ROOM_ENCAP_L4_UDP = 1U << 4,
};

#define FRAME_PASS(xdp) ((xdp) ? XDP_PASS : TCX_NEXT)
#define FRAME_DROP(xdp) ((xdp) ? XDP_DROP : TCX_DROP)

/* How much of a frame at TCX must be in one piece to be read: tags, IP with
 * options or extension headers, TCP, or an ICMP error with what it quotes. */
#define FRAME_HEADERS 256

/* A load of the context, which the compiler must not move, merge or widen: the
 * verifier knows these two by their exact form. */
#define frame_load(ctx, type, field) (*(volatile __u32 *)&((struct type *)(ctx))->field)

static __always_inline void *frame_data(void *ctx, const int xdp)
{
	return (void *)(long)(xdp ? frame_load(ctx, xdp_md, data) : frame_load(ctx, __sk_buff, data));
}

static __always_inline void *frame_end(void *ctx, const int xdp)
{
	return (void *)(long)(xdp ? frame_load(ctx, xdp_md, data_end) : frame_load(ctx, __sk_buff, data_end));
}

/* How much of the frame is in one piece. Only a subtraction in 64 bits makes a
 * number of two pointers, so the compiler must not narrow or rearrange it. */
static __always_inline __u32 frame_linear(void *ctx, const int xdp)
{
	__u64 linear = frame_end(ctx, xdp) - frame_data(ctx, xdp);

	asm volatile("" : "+r"(linear));
	return linear;
}

static __always_inline __u32 frame_length(void *ctx, const int xdp)
{
	return xdp ? frame_linear(ctx, xdp) : frame_load(ctx, __sk_buff, len);
}

static __always_inline __u32 frame_ifindex(void *ctx, const int xdp)
{
	return xdp ? frame_load(ctx, xdp_md, ingress_ifindex) : frame_load(ctx, __sk_buff, ifindex);
}

/* Brings the headers into one piece. Where that fails there is no memory. */
static __always_inline int frame_pull(void *ctx, const int xdp)
{
	__u32 length;

	if (xdp)
		return 1;
	length = frame_length(ctx, xdp);
	if (length > FRAME_HEADERS)
		length = FRAME_HEADERS;
	return frame_linear(ctx, xdp) >= length || !bpf_skb_pull_data(ctx, length);
}

/* The length of the largest IP packet that will be on the wire: the kernel may
 * have joined many, and takes them apart again (GSO). */
static __always_inline __u32 frame_wire_length(void *ctx, const int xdp, const struct packet *p, const void *data, const void *data_end)
{
	const struct wire_tcp *tcp;
	__u64 l4 = p->l4;
	__u32 segment;

	if (xdp)
		return p->length;
	segment = frame_load(ctx, __sk_buff, gso_size);
	/* The verifier has forgotten l4's bounds. */
	if (!segment || l4 > PACKET_L4_MAX)
		return p->length;
	segment += l4 - p->l3;
	if (p->protocol == IPPROTO_UDP)
		return segment + sizeof(struct wire_udp);
	tcp = data + l4;
	if ((const void *)(tcp + 1) > data_end)
		return p->length;
	return segment + (tcp->offset >> 4 << 2);
}

/* Sends the frame out of an interface. At TCX and for a packet that came from
 * there it is the same. */
static __always_inline int frame_send(void *ctx, const int xdp, __u32 ifindex)
{
	if (xdp && ifindex == frame_ifindex(ctx, xdp))
		return XDP_TX;
	return bpf_redirect(ifindex, 0);
}

/* Sends the frame back to where it came from: its Ethernet addresses change
 * places, tags stay. */
static __always_inline int frame_return(void *ctx, const int xdp)
{
	struct wire_ethernet *eth = frame_data(ctx, xdp);
	__u8 mac[6];

	if ((void *)(eth + 1) > frame_end(ctx, xdp))
		return FRAME_DROP(xdp);
	__builtin_memcpy(mac, eth->dest, 6);
	__builtin_memcpy(eth->dest, eth->source, 6);
	__builtin_memcpy(eth->source, mac, 6);
	return xdp ? XDP_TX : bpf_redirect(frame_ifindex(ctx, xdp), 0);
}

/* Cuts the frame to a length that it has at least. */
static __always_inline int frame_cut(void *ctx, const int xdp, __u32 length)
{
	if (!xdp)
		return !bpf_skb_change_tail(ctx, length, 0);
	return !bpf_xdp_adjust_tail(ctx, (int)length - (int)frame_length(ctx, xdp));
}
