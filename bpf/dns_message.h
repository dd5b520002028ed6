/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * A query's message becomes its answer, in the scratch frame: the question stays
 * as it is, in the client's own case. All of it is what dnsproxy does, byte for
 * byte; a test there compares both.
 */
#pragma once
#include "dns_frame.h"

#define EVERY 0x0101010101010101ULL

enum {
	DNS_QR = 0x8000,
	DNS_OPCODE = 0x7800,
	DNS_RD = 0x0100,
	DNS_CD = 0x0010,
	DNS_A = 1,
	DNS_AAAA = 28,
	DNS_IN = 1,
	DNS_DO = 0x80,
};

/* What a question wants. */
struct question {
	__u64 hash;
	__u64 end;  /* of the question, in the frame */
	__u32 aaaa;
	__u32 edns;
	__u32 dnssec; /* DNS_DO or 0 */
};

/* Letters in lower case; the lengths of labels are below them all. */
static __always_inline __u64 lower_word(__u64 w)
{
	__u64 low = w & (0x7f * EVERY);

	return w | ((~w & ((low + (0x80 - 'A') * EVERY) ^ (low + (0x7f - 'Z') * EVERY)) & (0x80 * EVERY)) >> 2);
}

/*
 * Writes the name in lower case, with zeros behind, and hashes it, a word at a
 * time. It ends with the first zero byte: where that is within a label, as a
 * hostile client may send it, the name is none that we have.
 */
static __always_inline __u64 read_name(struct dns_scratch *s, __u64 hash)
{
	const __u64 *name = &s->frame[NAME_AT / 8];

	s->name_length = 0;
	for (int i = 0; i < DNS_NAME_MAX / 8; i++) {
		__u64 w = name[i], zero = (w - EVERY) & ~w & (0x80 * EVERY);

		w = lower_word(w);
		if (zero) {
			zero &= -zero; /* bit 7 of the zero byte */
			w &= (zero << 1) - 1;
			/* The number of bytes before it, without a division. */
			s->name_length = i * 8 + 1 + (((zero >> 7) * 0x0001020304050607ULL) >> 56);
		}
		s->lower[i] = w;
		hash = (hash ^ w) * 0x9e3779b97f4a7c15ULL;
		hash ^= hash >> 32;
		if (zero)
			break;
	}
	return hash;
}

/* Gives DNS_ANSWERED when the question may have an answer here. */
static __always_inline enum dns_fate read_question(struct dns_scratch *s, const struct query *q, __u64 seed, struct question *ask)
{
	const __u8 *frame = (const __u8 *)s->frame;
	__u32 flags = bpf_ntohs(load16(frame + MESSAGE_AT + 2));
	__u64 counts = bpf_be64_to_cpu(load64(frame + MESSAGE_AT + 4)), length, rest;
	const __u8 *at;

	if (flags & (DNS_QR | DNS_OPCODE) || counts >> 16 != 1ULL << 32 || (counts & 0xffff) > 1)
		return DNS_PASS_MESSAGE;
	ask->edns = counts & 1;
	ask->hash = read_name(s, seed);
	/* What is read from memory the verifier knows nothing of: so it follows what
	 * comes once, not for every length. */
	asm volatile("" ::: "memory");
	length = *(volatile __u64 *)&s->name_length;
	if (length < 1 || length > DNS_NAME_MAX)
		return DNS_PASS_NAME;
	if (12 + length + 4 > q->size)
		return DNS_PASS_MESSAGE;
	at = frame + NAME_AT + length;
	if (load16(at + 2) != bpf_htons(DNS_IN))
		return DNS_PASS_TYPE;
	ask->aaaa = load16(at) == bpf_htons(DNS_AAAA);
	if (!ask->aaaa && load16(at) != bpf_htons(DNS_A))
		return DNS_PASS_TYPE;
	ask->end = NAME_AT + length + 4;
	rest = q->size - (12 + length + 4);
	if (!ask->edns)
		return rest ? DNS_PASS_MESSAGE : DNS_ANSWERED;
	/* The root's name, type, size, RCODE, version, flags; no options. */
	at += 4;
	if (rest != 11 || at[0] || load16(at + 1) != bpf_htons(41) || at[6] || at[9] || at[10])
		return DNS_PASS_EDNS;
	ask->dnssec = at[7] & DNS_DO;
	return DNS_ANSWERED;
}

static __always_inline int is_name(const struct dns_name *n, const struct dns_scratch *s)
{
	__u64 length = s->name_length, other = n->first ^ n->last;

	for (int i = 0; i < DNS_NAME_MAX / 8; i++) {
		if (i * 8 >= length)
			break;
		other |= n->name[i] ^ s->lower[i];
	}
	return !other;
}

/* Appends the records of a set, beginning at a random one, and gives the end. */
static __always_inline __u64 write_set(__u8 *frame, const struct dns_name *n, const struct dns_set *set, int aaaa, __u32 count, __u64 end)
{
	__u32 turn = (__u64)bpf_get_prandom_u32() * count >> 32;
	__u64 head = set->head;
	__u32 rest = set->rest;

	for (int i = 0; i < DNS_ADDRESSES_MAX; i++) {
		__u32 at = turn + i;
		__u8 *to;

		if (i >= count)
			break;
		if (at >= count)
			at -= count;
		at &= DNS_ADDRESSES_MAX - 1;
		asm volatile("" : "+r"(end));
		if (end > NAME_AT + DNS_NAME_MAX + 4 + DNS_ADDRESSES_MAX * 28)
			break;
		to = frame + end;
		*(__u64 *)to = head;
		*(__u32 *)(to + 8) = rest;
		if (aaaa) {
			*(__u64 *)(to + 12) = n->v6_be[2 * at];
			*(__u64 *)(to + 20) = n->v6_be[2 * at + 1];
			end += 28;
		} else {
			*(__u32 *)(to + 12) = n->v4_be[at];
			end += 16;
		}
	}
	return end;
}

/* Appends the SOA record of the name's zone, whose own name ends the question's
 * (RFC 2308). Gives 0 when it is not here. */
static __always_inline __u64 write_denial(__u8 *frame, const struct dns_name *n, __u64 end)
{
	__u32 zone = n->zone;
	__u64 apex = n->apex_length, size, last, to = end + 2;
	const struct dns_zone *z = bpf_map_lookup_elem(&dns_zones, &zone);

	if (!z || !apex || apex > end - NAME_AT - 4)
		return 0;
	last = z->last;
	asm volatile("" ::: "memory");
	size = z->size;
	if (!size || size > DNS_SOA_MAX || end > NAME_AT + DNS_NAME_MAX + 4)
		return 0;
	*(__be16 *)(frame + end) = bpf_htons(0xc000 | (end - MESSAGE_AT - 4 - apex));
	for (int i = 0; i < DNS_SOA_MAX / 8; i++) {
		if (i * 8 >= size)
			break;
		*(__u64 *)(frame + to + i * 8) = z->soa[i];
	}
	asm volatile("" ::: "memory");
	return z->first == last ? to + size : 0;
}

/* The proxy's OPT record: its own size, the client's wish for DNSSEC records. */
static __always_inline void write_opt(__u8 *at, __u32 dnssec)
{
	*(__u64 *)at = 0x000000d004290000ULL | (__u64)dnssec << 56;
	*(__u32 *)(at + 8) = 0;
}

/*
 * Writes the answer over the query. end becomes that of the message, behind which
 * there are three zeros; the fate tells whether there is one.
 */
static __always_inline enum dns_fate write_answer(struct dns_scratch *s, const struct question *ask, __be16 flags_be, __u64 *end)
{
	__u8 *frame = (__u8 *)s->frame;
	const struct dns_name *n = bpf_map_lookup_elem(&dns_names, &ask->hash);
	const struct dns_set *set;
	enum dns_fate fate = DNS_ANSWERED;
	__u64 at = ask->end, last;
	__u32 count;

	if (!n)
		return DNS_PASS_NAME;
	last = n->last;
	asm volatile("" ::: "memory");
	set = ask->aaaa ? &n->aaaa : &n->a;
	count = set->count;
	if (count > DNS_ADDRESSES_MAX)
		return DNS_PASS_SET;
	if (at > NAME_AT + DNS_NAME_MAX + 4)
		return DNS_PASS_MESSAGE;
	if (!count) {
		fate = DNS_DENIED;
		at = write_denial(frame, n, at);
		if (!at)
			return DNS_PASS_SET;
	} else if (ask->aaaa) {
		at = write_set(frame, n, set, 1, count, at);
	} else {
		at = write_set(frame, n, set, 0, count, at);
	}
	asm volatile("" ::: "memory");
	if (n->last != last || !is_name(n, s))
		return DNS_PASS_NAME;
	asm volatile("" : "+r"(at));
	if (at > 560)
		return DNS_PASS_KERNEL;
	if (ask->edns) {
		write_opt(frame + at, ask->dnssec);
		at += 11;
	}
	*(__u32 *)(frame + at) = 0;
	*end = at;
	*(__be16 *)(frame + MESSAGE_AT + 2) = flags_be | (load16(frame + MESSAGE_AT + 2) & bpf_htons(DNS_RD | DNS_CD));
	*(__be16 *)(frame + MESSAGE_AT + 6) = bpf_htons(count);
	*(__be16 *)(frame + MESSAGE_AT + 8) = bpf_htons(fate == DNS_DENIED);
	return fate;
}
