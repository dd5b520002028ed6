/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * What the maps hold. dataplane/program reads and writes the same bytes: a test
 * there holds the Go structs against the BTF of these.
 */
#pragma once
#include "kernel.h"

/* An IPv6 address, or an IPv4 address as ::ffff:a.b.c.d, so that one key and
 * one code path serve both families and IPv4-mapped sockets. */
struct address {
	union {
		__be32 word_be[4];
		__be64 half_be[2];
	};
};

/* Where clients connect. */
struct frontend_key {
	struct address addr;
	__be16 port_be;
	__u8 protocol;
	__u8 pad;
	__u32 pad2;
};

/*
 * self repeats the key. The kernel gives the memory of a deleted or replaced
 * hash element to the next insert at once, while a program that was preempted
 * may still read it, and would send its client to another service. The reader
 * takes service first and then compares self: since the kernel copies upwards,
 * a service that is another key's comes with another self.
 */
struct frontend {
	struct frontend_key self;
	__u32 service;
	__u32 pad;
};

enum balance {
	BALANCE_RANDOM = 1,
	BALANCE_MAGLEV = 2,
	BALANCE_P2C = 3,
};

enum service_flag {
	SERVICE_BY_NAMESPACE = 1, /* affinity knows clients by their network namespace */
	SERVICE_WATCH = 2,        /* failed connections are counted */
};

/*
 * run is the number of the first slot << 32 | the number of slots, in one word,
 * so that one load sees one whole run: storing it is the publication of the
 * service. The whole is one cache line.
 */
struct service {
	__u64 run;
	__u64 affinity_ns; /* 0: none */
	enum balance balance; /* 0: the id is free */
	enum service_flag flags; /* ored */
	__s32 max_open; /* 0: no limit */
	__s32 open; /* sockets; right only while there is a limit */
	__u64 gone; /* connections of backends that were removed; Set's alone */
	__u64 pad[3];
};

#define SLOTS_IN_CHUNK 16

/* The kernel rounds the elements of arrays up to 8 bytes; chunks keep a slot
 * at 4. */
struct slot_chunk {
	__u32 backend[SLOTS_IN_CHUNK];
};

enum backend_state {
	BACKEND_ABSENT = 0, /* the id is free, but a reader may still come */
	BACKEND_DOWN = 1,
	BACKEND_DRAINING = 2,
	BACKEND_UP = 3,
};

/* The programs count in the cache line that they read anyway. */
struct backend {
	struct address addr;
	__be16 port_be;
	__u16 generation; /* grows when the id becomes another backend's */
	enum backend_state state;
	__u32 service;
	__u32 repeats;  /* of opened: a socket that comes back to an earlier peer */
	__u64 opened;   /* sockets that got it as their peer */
	__u64 closed;   /* sockets that let go of it: the others are open */
	__u64 failures; /* connections that did not open, with SERVICE_WATCH */
	__u64 reset;    /* sockets that were ended because it went away */
};

struct service_name {
	__u8 text[256]; /* ends with a zero byte */
};

#define MAX_RANGES 8

struct range {
	struct address net;
	struct address mask;
};

struct ranges {
	struct range entry[MAX_RANGES];
	__u32 count;
	__u32 literals; /* whether the map addresses holds anything */
};

/* Who connects: see client.h. */
struct client {
	__u64 id[2];
};

struct affinity_key {
	struct client client;
	__u32 service;
	__u32 pad;
};

struct affinity {
	__u64 used_ns;
	__u32 backend;
	__u32 pad;
};

/*
 * Where a socket believes to talk to, and which backend it really has. Only the
 * socket whose cookie it holds reads and writes the rest, and the kernel locks the
 * socket for every program that does. Two of them share a cache line: a new
 * socket's place is cold.
 */
struct peer {
	__u64 cookie; /* 0: the place is free */
	struct address vip;
	__be16 vip_port_be;
	__u16 generation; /* of the backend's id */
	__u32 backend_id; /* 0: nothing is counted as open */
};

/* How many sockets found their place taken, so that nobody looks for them in
 * vain. */
struct displaced {
	__u32 peers;
	__u32 correspondents;
};

/* Places for peers. Cookies are counted up, so that sockets which live at the
 * same time seldom share a place. */
#define PLACES 65536

struct datagram_key {
	__u64 cookie;
	struct address backend;
	__be16 backend_port_be;
	__u16 pad;
	__u32 pad2;
};

/* cookie repeats the key's, for the reason given at struct frontend. */
struct datagram {
	struct address vip;
	__be16 vip_port_be;
	__u16 pad;
	__u32 pad2;
	__u64 cookie;
};

struct service_count {
	__u64 refused; /* no backend was up */
	__u64 limited; /* max_open were open */
};

/* Why a connection was balanced, refused or not remembered. Each but the first
 * and the last has a cell in the map reasons. */
enum reason {
	REASON_NOT_OURS = 0,
	REASON_BALANCED = 1,
	REASON_UNSERVED_PORT = 2, /* a virtual address that does not serve this port */
	REASON_NO_BACKEND = 3,    /* served, but no backend is up */
	REASON_DAMAGED = 4,       /* a map holds what we did not write */
	REASON_UNREMEMBERED = 5,  /* balanced, but no memory for the socket's peer */
	REASON_LIMITED = 6,       /* as many connections as allowed are open */
	REASON_MAX = 7,
};

struct reason_count {
	__u64 times;
};
