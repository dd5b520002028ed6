/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * QUIC (RFC 9000): a connection stays at its backend when the client's address
 * changes, since its packets bear an id that the server chose.
 *
 * Nobody tells us these ids: answers do not pass here. So a connection begins by
 * its addresses, as any UDP flow, and its ids are learned from the client's own
 * packets, together with the backend that its addresses lead to. The Initial's
 * id is the client's choice and says nothing. Handshake packets bear the server's
 * id with its length; the short headers after that bear it without.
 *
 * Limits: an id shorter than 4 bytes is not learned. An id that shows up for the
 * first time together with a new address (a client that migrates on purpose takes
 * a fresh id, section 9.5) is followed only if the new addresses lead to the same
 * backend: only ids that a server writes its own name into could tell. An edge
 * node that takes over knows no ids, and goes by addresses.
 */
#pragma once
#include "edge_pick.h"

enum {
	QUIC_LONG = 0x80,
	QUIC_FIXED = 0x40,
	QUIC_ID_LONG = 8, /* how much of an id counts */
	QUIC_ID_SHORT = 4,
	QUIC_VERSION_1 = 1,
	QUIC_VERSION_2 = 0x6b3343cf, /* RFC 9369 */
	QUIC_INITIAL = 0,
	QUIC_HANDSHAKE = 2,
};

struct quic_long {
	__u8 first;
	__u8 version_be[4];
	__u8 id_length;
	__u8 id[8];
} __attribute__((packed));

struct quic_short {
	__u8 first;
	__u8 id[8];
} __attribute__((packed));

/* Which of version 1's types a long header is. */
static __always_inline int quic_type(const struct quic_long *h)
{
	__u32 version = (__u32)h->version_be[0] << 24 | h->version_be[1] << 16 | h->version_be[2] << 8 | h->version_be[3];

	if (version == QUIC_VERSION_2)
		return ((h->first >> 4) - 1) & 3;
	return version == QUIC_VERSION_1 ? h->first >> 4 & 3 : -1;
}

static __always_inline void quic_key_fill(struct edge_quic_key *key, const __u8 *id, __u32 length)
{
	__builtin_memcpy(&key->id, id, sizeof(key->id));
	key->length = length;
	if (length == QUIC_ID_SHORT)
		key->id &= 0xffffffff; /* the first four on the wire */
}

/* Looks for the packet's id. A short header does not say how long the id is:
 * both lengths are tried. */
static __always_inline __u32 quic_known(struct edge_quic_key *key, const __u8 *id, __u32 length)
{
	const struct edge_memory *m;

	quic_key_fill(key, id, length);
	m = bpf_map_lookup_elem(&edge_quic_ids, key);
	return m ? edge_recall(m, key->id, key->service) : 0;
}

/* The id of the flow's backend, or 0. begins tells of a new connection. */
static __always_inline __u32 quic_pick(const struct packet *p, const void *data, const void *data_end, const struct edge_service *s, __u32 service, __u64 hash, int *begins)
{
	const struct quic_short *brief = data + p->l4 + sizeof(struct wire_udp);
	const struct quic_long *h = (const void *)brief;
	struct edge_syn *learned = bpf_map_lookup_elem(&edge_syns, &service);
	struct edge_quic_key key = { .service = service };
	__u32 known, length = 0;

	if ((const void *)(brief + 1) > data_end || !learned)
		return edge_pick(p, s, service, hash);
	if (!(brief->first & QUIC_LONG)) {
		if (!(brief->first & QUIC_FIXED))
			return edge_pick(p, s, service, hash);
		known = quic_known(&key, brief->id, QUIC_ID_SHORT);
		if (!known)
			known = quic_known(&key, brief->id, QUIC_ID_LONG);
		if (known)
			return known;
		/* Fresh ids of a service whose ids are long: of a short one the
		 * second half would be another with each packet. */
		if (learned->quic_lengths == QUIC_ID_LONG)
			length = QUIC_ID_LONG;
	} else {
		if ((const void *)(h + 1) > data_end)
			return edge_pick(p, s, service, hash);
		*begins = quic_type(h) == QUIC_INITIAL;
		if (quic_type(h) == QUIC_HANDSHAKE)
			length = h->id_length >= QUIC_ID_LONG ? QUIC_ID_LONG : h->id_length >= QUIC_ID_SHORT ? QUIC_ID_SHORT : 0;
		if (length) {
			if (!(learned->quic_lengths & length))
				learned->quic_lengths |= length;
			known = quic_known(&key, h->id, length);
			if (known)
				return known;
		}
	}
	known = edge_pick(p, s, service, hash);
	if (length && known)
		edge_remember(&edge_quic_ids, &key, known, key.id);
	return known;
}
