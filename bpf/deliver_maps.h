/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * What deliver.c keeps. "Set" is that of dataplane/deliver. Sizes are what a load
 * without wishes gets.
 */
#pragma once
#include "deliver_wire.h"

/* What becomes of a packet. Each but the first is counted at its place. */
enum fate {
	FATE_NOT_OURS = 0,
	FATE_DELIVERED = 1,       /* taken out of a tunnel, on to the backend */
	FATE_ANSWERED = 2,        /* an answer, sent from the virtual address */
	FATE_ERROR_DELIVERED = 3, /* an ICMP error about answers */
	FATE_ERROR_ANSWERED = 4,  /* an ICMP error about delivered packets */
	FATE_CLAMPED = 5,         /* a SYN-ACK that now asks for smaller segments */
	FATE_FORGOTTEN = 6,       /* a client that now speaks to the backend itself */
	/* These are dropped. */
	FATE_NO_EDGE = 7,         /* tunnel from an address that is no edge node's */
	FATE_BAD_OUTER = 8,       /* lengths or checksum of the outer headers */
	FATE_FRAGMENTED = 9,      /* the tunnel's own packets are fragments */
	FATE_BAD_GUE = 10,        /* another variant, length, protocol or flags */
	FATE_BAD_INNER = 11,      /* the client's packet is cut short or no IP */
	FATE_PROTOCOL = 12,       /* neither TCP, UDP nor an ICMP error */
	FATE_UNKNOWN = 13,        /* this service has no such backend here */
	FATE_LATE_FRAGMENT = 14,  /* its first fragment has not been seen */
	FATE_NO_MEMORY = 15,      /* the flow could not be remembered */
	FATE_KERNEL = 16,         /* the kernel refused to change the packet */
	FATE_CONGESTED = 17,      /* marked on the way, and the client knows no marks */
	FATE_MAX = 18,
};

struct config {
	__u32 mtu; /* the smallest of the interfaces' */
	__u32 pad;
};

enum role {
	ROLE_EDGE = 1, /* tunnels may come from it */
	ROLE_NODE = 2, /* tunnels end at it */
};

struct tunnel_end {
	enum role roles;
};

/* A frontend of a service with one of its backends. */
struct target {
	struct address vip;
	struct address backend;
	__be16 vip_port_be;
	__be16 backend_port_be;
	__u8 protocol;
	__u8 pad[3];
};

struct flow_key {
	struct address client;
	struct address backend;
	__be16 client_port_be;
	__be16 backend_port_be;
	__u8 protocol;
	__u8 pad[3];
};

/*
 * self repeats the key: the kernel gives the memory of an entry that falls out
 * of the LRU to another key at once, while a program may still read it. Since
 * it copies upwards, who takes the rest first and then compares self never uses
 * another flow's.
 */
struct flow {
	struct flow_key self;
	struct address vip;
	__be16 vip_port_be;
	__u16 mss; /* the largest that fits the tunnel */
	__u32 pad;
	__u64 used_ns;
};

/* Fragments after the first have no ports. */
struct fragment_key {
	struct address source;
	struct address dest;
	__be32 id_be;
	__u8 protocol;
	__u8 pad[3];
};

struct fragment {
	struct fragment_key self;
	struct address becomes; /* destination of a delivered, source of an answer */
	struct address backend;
};

struct count {
	__u64 times;
};

/* Key: 0. Writer: Set. Reader: programs. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct config);
} config SEC(".maps");

/* The ends of tunnels. Writer: Set. Reader: ingress program, for packets to
 * the tunnels' port alone. Size: edge nodes, and a few addresses of this one. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 4096);
	__type(key, struct address);
	__type(value, struct tunnel_end);
} ends SEC(".maps");

/* What may be delivered here. Value: 1; only its presence counts. Writer: Set.
 * Reader: ingress program. Size: frontends times backends of this node. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct target);
	__type(value, __u32);
} targets SEC(".maps");

/* Flows that came through tunnels. Writer: ingress program. Reader: both. Size:
 * flows at one time; the least recently used give way. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 131072);
	__type(key, struct flow_key);
	__type(value, struct flow);
} flows SEC(".maps");

/* Datagrams whose first fragment went through. Writers and readers: both
 * programs. Size: datagrams under way at one time. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct fragment_key);
	__type(value, struct fragment);
} fragments SEC(".maps");

/* Key: enum fate. Writer: programs. Reader: Counters. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, FATE_MAX);
	__type(key, __u32);
	__type(value, struct count);
} counts SEC(".maps");

static __always_inline void deliver_count(__u32 reason)
{
	struct count *c = bpf_map_lookup_elem(&counts, &reason);

	/* At egress, a packet from a process and one from a softirq can meet on
	 * one CPU. */
	if (c)
		__sync_fetch_and_add(&c->times, 1);
}
