// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//go:build ignore

/*
 * Answers for the DNS proxy, at TCX (Linux 6.6): a question for the addresses of
 * a cluster's name gets its answer from a map, on the interface that it came by,
 * before any socket sees it. Whatever is unusual goes up untouched.
 */
#include "dns_message.h"

#define SECOND 1000000000ULL
#define BEAT_LIMIT (3 * SECOND)
#define LOOPBACK 1 /* the index of lo in every network namespace */

/* A function of its own, whose signature brings the enum into the BTF, from
 * where Go has it. */
static __attribute__((noinline)) int pass(enum dns_fate why)
{
	dns_count(why);
	return TCX_NEXT;
}

/* Whether user space has said within the last seconds that it lives and that the
 * names are right. The coarse clock may lag behind the one that it reads. */
static __always_inline int is_fresh(void)
{
	__u32 zero = 0;
	const struct dns_beat *beat = bpf_map_lookup_elem(&dns_beat, &zero);

	return beat && beat->at_ns && bpf_ktime_get_coarse_ns() + SECOND - beat->at_ns < BEAT_LIMIT + SECOND;
}

static __always_inline int answer(struct __sk_buff *skb, const struct dns_config *c, struct query *q, int v6)
{
	__u32 zero = 0;
	struct dns_scratch *s = bpf_map_lookup_elem(&dns_scratch, &zero);
	__u64 length = skb->len, start, head, end = 0;
	struct question ask = {};
	enum dns_fate fate;
	__u8 *frame;

	if (!s)
		return pass(DNS_PASS_KERNEL);
	frame = (__u8 *)s->frame;
	/* What is read from memory the verifier knows nothing of: so it follows what
	 * comes once, not for each family. */
	s->start = v6 ? FRAME6_AT : FRAME4_AT;
	s->head = q->frame;
	asm volatile("" ::: "memory");
	start = *(volatile __u64 *)&s->start;
	head = *(volatile __u64 *)&s->head;
	if (start > FRAME4_AT || head > 62 || length < head + QUERY_MIN || length > head + QUERY_MAX)
		return pass(DNS_PASS_MESSAGE);
	asm volatile("" : "+r"(length));
	if (length < 1 || length > 62 + QUERY_MAX || bpf_skb_load_bytes(skb, 0, frame + start, length))
		return pass(DNS_PASS_KERNEL);
	q->size = length - head;
	*(__u32 *)(frame + start + length) = 0;
	if (!query_sum_is_right(frame, q))
		return pass(DNS_PASS_CHECKSUM);
	fate = read_question(s, q, c->seed, &ask);
	if (fate != DNS_ANSWERED)
		return pass(fate);
	fate = write_answer(s, &ask, c->flags_be, &end);
	if (fate > DNS_DENIED)
		return pass(fate);
	if (!turn_udp(frame, q, end - MESSAGE_AT))
		return pass(DNS_PASS_KERNEL);
	if (start == FRAME6_AT)
		turn_ip6(frame, end - MESSAGE_AT);
	else
		turn_ip4(frame, end - MESSAGE_AT);
	/* Until here the packet is as it came. */
	length = end - start;
	if (length > 560 || bpf_skb_change_tail(skb, length, 0))
		return pass(DNS_PASS_KERNEL);
	asm volatile("" : "+r"(length));
	if (length < 1 || length > 560 || bpf_skb_store_bytes(skb, 0, frame + start, length, 0))
		return pass(DNS_PASS_KERNEL);
	dns_count(fate);
	return bpf_redirect(skb->ifindex, 0);
}

static __always_inline int dns_answer(struct __sk_buff *skb)
{
	__u32 zero = 0;
	const struct dns_config *c;
	struct query q = {};
	int v6 = skb->protocol == bpf_htons(WIRE_ETH_IP6), ours;

	if ((!v6 && skb->protocol != bpf_htons(WIRE_ETH_IP4)) || skb->vlan_present)
		return TCX_NEXT;
	c = bpf_map_lookup_elem(&dns_config, &zero);
	if (!c)
		return TCX_NEXT;
	ours = v6 ? query_for_us6(skb, c, &q) : query_for_us4(skb, c, &q);
	if (ours == NOT_OURS)
		return TCX_NEXT;
	if (!is_fresh())
		return pass(DNS_PASS_STALE);
	if (ours == ODD || skb->pkt_type == PACKET_BROADCAST || skb->pkt_type == PACKET_MULTICAST)
		return pass(DNS_PASS_PACKET);
	if (skb->ifindex != LOOPBACK && !dns_may_ask(c, &q.source))
		return pass(DNS_PASS_CLIENT);
	return answer(skb, c, &q, v6);
}

SEC("tcx/ingress")
int weir_dns_answer(struct __sk_buff *skb)
{
	return dns_answer(skb);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
