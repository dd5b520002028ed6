/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Answers to the client in the name of the virtual address: TCP resets, ICMP
 * errors and echo replies, made of the packet that came. A reset is no longer
 * than what it answers, and ICMP errors are rationed, so nobody is flooded
 * through us.
 */
#pragma once
#include "edge_count.h"

enum {
	ANSWER_TTL = 64,
	ANSWER_QUOTE_MAX = 112, /* IP header with options or extensions, and 8 bytes */
	ANSWER_SPACE_NS = 100000, /* between two ICMP errors of one CPU */
	ANSWER_BURST_NS = 10000000,
	ICMP4_UNREACHABLE = 3,
	ICMP4_PORT = 3,
	ICMP4_TOO_BIG = 4,
	ICMP6_UNREACHABLE = 1,
	ICMP6_PORT = 4,
	ICMP6_TOO_BIG = 2,
};

/* The header of an IPv4 answer with its checksum; 20 bytes. */
static __always_inline void answer_ip4(struct wire_ip4 *ip, const struct packet *p, __u32 length, __u8 protocol)
{
	__u32 *w = (__u32 *)ip;
	__u64 sum;

	w[0] = 0x45 | (__u32)bpf_htons(length) << 16;
	w[1] = (__u32)bpf_htons(PACKET_IP4_DONT_FRAGMENT) << 16;
	w[2] = ANSWER_TTL | (__u32)protocol << 8;
	w[3] = p->dst.word_be[3];
	w[4] = p->src.word_be[3];
	sum = (__u64)w[0] + w[1] + w[2] + w[3] + w[4];
	ip->check = ~sum_fold(sum);
}

static __always_inline void answer_ip6(struct wire_ip6 *ip, const struct packet *p, __u32 length, __u8 protocol)
{
	*(__u32 *)ip = bpf_htonl(6U << 28);
	ip->length_be = bpf_htons(length);
	ip->protocol = protocol;
	ip->hops = ANSWER_TTL;
	ip->source = p->dst;
	ip->dest = p->src;
}

/* The sum of the pseudo header, of either family. */
static __always_inline __u64 answer_pseudo(const struct packet *p, __u32 length, __u8 protocol)
{
	__u64 sum = (__u64)bpf_htonl(length) + bpf_htonl(protocol);

	sum += (__u64)p->src.word_be[3] + p->dst.word_be[3];
	if (p->v6) {
		sum += (__u64)p->src.word_be[0] + p->src.word_be[1] + p->src.word_be[2];
		sum += (__u64)p->dst.word_be[0] + p->dst.word_be[1] + p->dst.word_be[2];
	}
	return sum;
}

/* RFC 9293 section 3.5.2. fin and syn take a place in the sequence. */
static __always_inline void answer_reset_fill(struct wire_tcp *tcp, const struct packet *p, const struct wire_tcp *old, __u32 carried)
{
	__u32 *w = (__u32 *)tcp;
	__u32 sequence = 0, acknowledge = 0, flags = WIRE_TCP_RST;
	__u64 sum;

	if (p->tcp_flags & WIRE_TCP_ACK) {
		sequence = old->acknowledge_be;
	} else {
		flags |= WIRE_TCP_ACK;
		acknowledge = bpf_htonl(bpf_ntohl(old->sequence_be) + carried - (old->offset >> 4 << 2) +
					!!(p->tcp_flags & WIRE_TCP_SYN) + !!(p->tcp_flags & WIRE_TCP_FIN));
	}
	w[0] = p->dport_be | (__u32)p->sport_be << 16;
	w[1] = sequence;
	w[2] = acknowledge;
	w[3] = 0x50 | flags << 8;
	w[4] = 0;
	sum = answer_pseudo(p, sizeof(*tcp), IPPROTO_TCP) + w[0] + w[1] + w[2] + w[3];
	tcp->check = ~sum_fold(sum);
}

/* Turns the packet into a reset of its connection. */
static __always_inline int answer_reset(void *ctx, const int xdp, const struct packet *p)
{
	const __u32 header = p->v6 ? sizeof(struct wire_ip6) : sizeof(struct wire_ip4);
	void *data = frame_data(ctx, xdp), *end = frame_end(ctx, xdp);
	struct wire_tcp old, *tcp = data + p->l4;

	if ((p->tcp_flags & WIRE_TCP_RST) || (void *)(tcp + 1) > end)
		return edge_drop(xdp, EDGE_UNANSWERED, 0);
	old = *tcp;
	if (!frame_cut(ctx, xdp, p->l3 + header + sizeof(*tcp)))
		return edge_drop(xdp, EDGE_FRAME, 0);
	data = frame_data(ctx, xdp) + p->l3;
	end = frame_end(ctx, xdp);
	if (p->v6) {
		tcp = data + sizeof(struct wire_ip6);
		if ((void *)(tcp + 1) > end)
			return edge_drop(xdp, EDGE_FRAME, 0);
		answer_ip6(data, p, sizeof(*tcp), IPPROTO_TCP);
	} else {
		tcp = data + sizeof(struct wire_ip4);
		if ((void *)(tcp + 1) > end)
			return edge_drop(xdp, EDGE_FRAME, 0);
		answer_ip4(data, p, header + sizeof(*tcp), IPPROTO_TCP);
	}
	answer_reset_fill(tcp, p, &old, p->length - (p->l4 - p->l3));
	edge_reason_count(EDGE_ANSWERED);
	return frame_return(ctx, xdp);
}

/* Makes room for an IP and an ICMP header before the IP header. */
static __always_inline int answer_room(void *ctx, const int xdp, const struct packet *p, __u32 size)
{
	void *data, *end;

	if (!xdp)
		return !bpf_skb_adjust_room(ctx, size, BPF_ADJ_ROOM_MAC, 0) && frame_pull(ctx, xdp);
	if (bpf_xdp_adjust_head(ctx, -(int)size))
		return 0;
	data = frame_data(ctx, xdp);
	end = frame_end(ctx, xdp);
	for (int i = 0; i < (sizeof(struct wire_ethernet) + PACKET_TAGS * sizeof(struct packet_tag)) / 2; i++) {
		__u16 *to = data + 2 * i, *from = data + 2 * i + size;

		if (2 * i >= p->l3)
			break;
		if ((void *)(from + 1) > end)
			return 0;
		*to = *from;
	}
	return 1;
}

static __always_inline int answer_due(void)
{
	__u32 zero = 0;
	__u64 *due = bpf_map_lookup_elem(&edge_answers, &zero), now = bpf_ktime_get_ns();

	if (!due || *due > now)
		return 0;
	if (*due + ANSWER_BURST_NS < now)
		*due = now - ANSWER_BURST_NS;
	*due += ANSWER_SPACE_NS;
	return 1;
}

/* Turns the packet into an ICMP error that quotes it. rest is the second word of
 * the ICMP header: an MTU, in its place, or 0. */
static __always_inline int answer_icmp(void *ctx, const int xdp, const struct packet *p, __u32 type_code, __be32 rest_be)
{
	const __u32 size = (p->v6 ? sizeof(struct wire_ip6) : sizeof(struct wire_ip4)) + sizeof(struct wire_icmp);
	__u64 quote = p->l4 - p->l3 + 8, sum;
	struct wire_icmp *icmp;
	void *data, *end;

	if (quote > ANSWER_QUOTE_MAX || quote > p->length || !answer_due())
		return edge_drop(xdp, EDGE_UNANSWERED, 0);
	if (!frame_cut(ctx, xdp, p->l3 + quote) || !answer_room(ctx, xdp, p, size))
		return edge_drop(xdp, EDGE_FRAME, 0);
	data = frame_data(ctx, xdp) + p->l3;
	end = frame_end(ctx, xdp);
	if (p->v6) {
		icmp = data + sizeof(struct wire_ip6);
		if ((void *)(icmp + 1) > end)
			return edge_drop(xdp, EDGE_FRAME, 0);
		answer_ip6(data, p, sizeof(*icmp) + quote, WIRE_ICMP6);
		sum = answer_pseudo(p, sizeof(*icmp) + quote, WIRE_ICMP6);
	} else {
		icmp = data + sizeof(struct wire_ip4);
		if ((void *)(icmp + 1) > end)
			return edge_drop(xdp, EDGE_FRAME, 0);
		answer_ip4(data, p, size + quote, WIRE_ICMP);
		sum = 0;
	}
	icmp->type = type_code >> 8;
	icmp->code = type_code;
	icmp->check = 0;
	icmp->rest_be = rest_be;
	sum += *(__u32 *)icmp + (__u64)rest_be;
	data = icmp + 1;
	for (int i = 0; i < ANSWER_QUOTE_MAX / 4; i++) {
		__u32 *word = data + 4 * i;

		if (4 * i >= quote || (void *)(word + 1) > end)
			break;
		sum += *word;
	}
	icmp->check = ~sum_fold(sum);
	edge_reason_count(EDGE_ANSWERED);
	return frame_return(ctx, xdp);
}

/* Global functions: the verifier looks at each once, whatever its callers know,
 * and the hot path does not carry them. */
__attribute__((noinline)) int answer_icmp_xdp(struct xdp_md *ctx, const struct packet *p, __u32 type_code, __be32 rest_be)
{
	struct packet q;

	if (!p || !packet_copy(&q, p))
		return XDP_DROP;
	return answer_icmp(ctx, 1, &q, type_code, rest_be);
}

__attribute__((noinline)) int answer_icmp_tcx(struct __sk_buff *ctx, const struct packet *p, __u32 type_code, __be32 rest_be)
{
	struct packet q;

	if (!p || !packet_copy(&q, p))
		return TCX_DROP;
	return answer_icmp(ctx, 0, &q, type_code, rest_be);
}

/* The packet has no room in the tunnel. */
static __always_inline int answer_too_big(void *ctx, const int xdp, const struct packet *p, __u32 mtu, __u32 service)
{
	__u32 type_code = p->v6 ? ICMP6_TOO_BIG << 8 : ICMP4_UNREACHABLE << 8 | ICMP4_TOO_BIG;
	__be32 rest_be = bpf_htonl(p->v6 ? mtu : mtu & 0xffff);

	edge_reason_count(EDGE_TOO_BIG);
	edge_refused_count(service);
	/* Who may be fragmented has asked for no news, and about errors none is
	 * sent, nor about IPv4 fragments but the first (RFC 1812 section 4.3.2.7). */
	if (!p->dont_fragment || p->kind == PACKET_ICMP || (!p->v6 && p->kind == PACKET_FRAGMENT))
		return edge_drop(xdp, EDGE_UNANSWERED, 0);
	return xdp ? answer_icmp_xdp(ctx, p, type_code, rest_be) : answer_icmp_tcx(ctx, p, type_code, rest_be);
}

__attribute__((noinline)) int answer_reset_xdp(struct xdp_md *ctx, const struct packet *p)
{
	struct packet q;

	if (!p || !packet_copy(&q, p))
		return XDP_DROP;
	return answer_reset(ctx, 1, &q);
}

__attribute__((noinline)) int answer_reset_tcx(struct __sk_buff *ctx, const struct packet *p)
{
	struct packet q;

	if (!p || !packet_copy(&q, p))
		return TCX_DROP;
	return answer_reset(ctx, 0, &q);
}

/* Tells the client that nobody serves it here. */
static __always_inline int edge_refuse(void *ctx, const int xdp, const struct packet *p, enum edge_reason why, __u32 service)
{
	__u32 type_code = p->v6 ? ICMP6_UNREACHABLE << 8 | ICMP6_PORT : ICMP4_UNREACHABLE << 8 | ICMP4_PORT;

	edge_reason_count(why);
	if (service)
		edge_refused_count(service);
	if (p->protocol == IPPROTO_TCP)
		return xdp ? answer_reset_xdp(ctx, p) : answer_reset_tcx(ctx, p);
	return xdp ? answer_icmp_xdp(ctx, p, type_code, 0) : answer_icmp_tcx(ctx, p, type_code, 0);
}
