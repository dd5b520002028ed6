/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * What the edge's maps hold. dataplane/edge reads and writes the same bytes: a
 * test there holds the Go structs against the BTF of these.
 */
#pragma once
#include "packet.h"

/* Where clients send to. self repeats the key, for the reason given at struct
 * frontend in layout.h. */
struct edge_frontend {
	struct frontend_key self;
	__u32 service;
	__u32 pad;
};

enum edge_deliver {
	EDGE_DELIVER_NONE = 0, /* the id is free */
	EDGE_DELIVER_DSR = 1,
	EDGE_DELIVER_IPIP = 2,
	EDGE_DELIVER_NAT = 3,
};

enum {
	EDGE_ALLOW = 1, /* only clients in the map edge_allowed */
	EDGE_QUIC = 2,
};

/*
 * One cache line. run is the number of the first slot << 32 | the number of
 * slots, in one word, so that one load sees one whole run: storing it is the
 * publication of the service.
 */
struct edge_service {
	__u64 run;
	__u64 changed_ns; /* CLOCK_MONOTONIC: since when slots have a previous backend */
	__u64 settle_ns;  /* how long after it an unknown UDP flow counts as an old one */
	__u64 syn_ns;     /* between two new connections; 0: no limit */
	__u64 syn_burst_ns;
	enum edge_deliver deliver;
	__u32 flags;
	__u64 pad[2];
};

/* previous is 0 where there was none, and current itself where only flows that are
 * remembered may be elsewhere. */
struct edge_slot {
	__u32 current;
	__u32 previous;
};

enum {
	EDGE_OUTER6 = 1, /* the tunnel is over IPv6 */
	EDGE_LOCAL = 2,  /* the tunnel ends on this node */
};

/*
 * One cache line. An id's addresses never change while anybody can see it; state
 * and hop do, in one word each. birth tells the id's owners apart.
 */
struct edge_backend {
	struct address addr;
	struct address node; /* where the tunnel ends; addr itself without a tunnel */
	__be16 port_be;
	__u16 pad;
	__u32 birth;
	enum backend_state state;
	__u32 service;
	__u32 hop; /* 0: ask the kernel */
	__u32 flags;
	__u64 pad2;
};

/* The way to the next machine. Never changed while a backend has its id. */
struct edge_hop {
	__u8 dmac[6];
	__u8 smac[6];
	__be16 vlan_be; /* 0: no tag */
	__u16 pad;
	__u32 ifindex;
	__u32 mtu; /* of IP packets */
	__u32 pad2[2];
};

/* Source addresses of tunnels; the word which says which of the two is valid. */
struct edge_source {
	struct address v4; /* the last word; 0: none */
	struct address v6; /* 0: none */
};

struct edge_config {
	__u32 which;
	__u32 nat; /* whether backends behind NAT may answer */
	struct edge_source source[2];
};

/* A flow, or an ICMP error's quoted flow turned round. */
struct edge_flow_key {
	struct address src;
	struct address dst;
	__be16 sport_be;
	__be16 dport_be;
	__u32 protocol;
};

struct edge_fragment_key {
	struct address src;
	struct address dst;
	__be32 id_be;
	__u32 protocol;
};

/* The first bytes of a connection id that the server chose (RFC 9000). */
struct edge_quic_key {
	__u64 id;
	__u32 service;
	__u32 length; /* of the id's part in it */
};

/* check repeats what of the key tells flows apart: the memory of an entry that
 * falls out of an LRU is another's at once. */
struct edge_memory {
	__u32 backend;
	__u32 birth;
	__u64 check;
};

struct edge_allow_key {
	__u32 bits; /* 32 of the service, and those of the prefix */
	__be32 service_be;
	struct address net;
};

/* When the latest new connection of a service was due, in the flow of time that
 * syn_ns gives, and the lengths of its QUIC ids, one bit each (see edge_quic.h). A
 * cache line, since all CPUs write it. */
struct edge_syn {
	__u64 due_ns;
	__u64 quic_lengths;
	__u64 pad[6];
};

/* What the core tells the NAT program of a packet that goes to a backend, and the
 * way that this finds. */
struct edge_parcel {
	struct packet packet;
	__u32 backend;
	__u32 service;
	struct edge_hop hop;
};

/* Half a cache line. */
struct edge_service_count {
	__u64 packets; /* delivered */
	__u64 bytes;   /* of IP */
	__u64 flows;   /* SYNs; QUIC Initials */
	__u64 refused; /* or dropped, once the service was known */
};

struct edge_count {
	__u64 times;
};

/* What became of a packet that was not simply delivered. */
enum edge_reason {
	EDGE_NOT_OURS = 0,       /* passed, and not counted: no virtual address */
	EDGE_MALFORMED = 1,      /* dropped; edge_faults tells why */
	EDGE_UNSERVED_PORT = 2,  /* refused: a virtual address that does not serve this port */
	EDGE_NO_BACKEND = 3,     /* refused */
	EDGE_NOT_ALLOWED = 4,    /* dropped: not a client of the allow list */
	EDGE_SYN_SHED = 5,       /* dropped: more new connections than the service takes */
	EDGE_TOO_BIG = 6,        /* answered with the MTU, or dropped if it may be fragmented */
	EDGE_NO_ROUTE = 7,       /* dropped: neither a hop nor a route to the backend's node */
	EDGE_NO_NEIGHBOUR = 8,   /* dropped: the next hop does not answer to ARP or NDP yet */
	EDGE_NO_SOURCE = 9,      /* dropped: this node has no address of the tunnel's family */
	EDGE_FRAGMENT_LOST = 10, /* dropped: the first fragment has not come this way */
	EDGE_PROTOCOL = 11,      /* dropped: neither TCP, UDP nor ICMP */
	EDGE_ICMP = 12,          /* dropped: an ICMP message that no flow of a service needs */
	EDGE_ECHO = 13,          /* answered */
	EDGE_ICMP_ERROR = 14,    /* delivered to the backend of the flow that it is about */
	EDGE_ANSWERED = 15,      /* refusals that the client has been told of */
	EDGE_UNANSWERED = 16,    /* ICMP answers beyond the rate, or that do not apply */
	EDGE_DAMAGED = 17,       /* dropped: a map holds what we did not write */
	EDGE_FRAME = 18,         /* dropped: the kernel could not make room for the headers */
	EDGE_CACHED = 19,        /* new entries of the connection cache */
	EDGE_NAT_DROPPED = 20,   /* dropped by nat.h; nat_counts tells why */
	EDGE_REASON_MAX = 21,
};
