/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* What nat.h keeps, and the words it uses. */
#pragma once
#include "deliver_wire.h"

/* How many ports are tried for a new flow, and looked at for an old one. */
#define NAT_PROBES 32

#define NAT_SECOND 1000000000ULL

/* Counted in nat_counts, at these places. */
enum nat_result {
	NAT_NOT_OURS = 0,   /* not counted */
	NAT_REWRITTEN = 1,
	NAT_ALLOCATED = 2,  /* a flow got a port; its packet counts as rewritten too */
	NAT_EXHAUSTED = 3,  /* every port that was tried is another flow's */
	NAT_MALFORMED = 4,  /* headers that are cut short, or an error that quotes too little */
	NAT_NO_ADDRESS = 5, /* the node has no address of the family, or no ports */
	NAT_UNKNOWN = 6,    /* an ICMP error about a flow that we do not know */
	NAT_FRAGMENT = 7,   /* NAT needs ports, which later fragments lack */
	NAT_MAX = 8,
};

/* The way back to whom a client's packets come from: its host, or a router. */
struct nat_way {
	__u8 dmac[6];
	__u8 smac[6];
	__u32 ifindex; /* 0: not known */
	__be16 vlan_be; /* 0: no tag */
	__u16 pad;
};

struct nat_packet {
	__u16 l3; /* offset of the IP header from data */
	__u16 l4; /* of what follows it, options and extensions skipped */
	__u8 v6;
	__u8 protocol; /* TCP, UDP, ICMP or ICMPv6 */
	__u16 pad;
	struct nat_way back; /* in for nat_forward, out for nat_reply */
	void *skb; /* at TCX: the kernel knows what its checksums are; else 0 */
};

struct nat_config {
	struct address own4; /* zero: none */
	struct address own6;
	__u16 first_port; /* host order */
	__u16 ports;      /* how many; 0: NAT is off */
	__u32 pad;
};

/* What an answer looks like: from the backend to a port of ours. */
struct nat_key {
	struct address backend;
	__be16 backend_port_be;
	__be16 port_be;
	__u8 protocol;
	__u8 pad[3];
};

/*
 * self repeats the key: the kernel gives the memory of an entry that falls out
 * of the LRU to another key at once, while a program may still read it. Since
 * it copies upwards, who takes the rest first and then compares self never uses
 * another flow's.
 */
struct nat_flow {
	struct nat_key self;
	struct address client;
	struct address vip;
	__be16 client_port_be;
	__be16 vip_port_be;
	__u32 state; /* enum nat_state */
	__u64 used_ns;
	struct nat_way back; /* as the client's latest packet came */
	__u32 pad;
};

enum nat_state {
	NAT_CLIENT_FIN = 1,
	NAT_BACKEND_FIN = 2,
	NAT_RESET = 4,
	NAT_ANSWERED = 8,
};

struct nat_count {
	__u64 times;
};

/* Addresses and ports. Key: 0. Writer: user space. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct nat_config);
} nat_config SEC(".maps");

/* Flows by their answers; there is no second map by client, since the client's
 * hash says where in it to look. Writer and reader: programs. Size: flows at one
 * time; the least recently used give way. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 131072);
	__type(key, struct nat_key);
	__type(value, struct nat_flow);
} nat_flows SEC(".maps");

/* Where a new flow is put together, on each CPU, since the stack has no room for
 * it. Key: 0. Writer and reader: programs. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct nat_flow);
} nat_fresh SEC(".maps");

/* Key: enum nat_result. Writer: programs. Reader: user space. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, NAT_MAX);
	__type(key, __u32);
	__type(value, struct nat_count);
} nat_counts SEC(".maps");

/* Its signature brings enum nat_result into the BTF, from where Go has it. */
static __attribute__((noinline)) enum nat_result nat_drop(enum nat_result why)
{
	__u32 key = why;
	struct nat_count *c = bpf_map_lookup_elem(&nat_counts, &key);

	if (c)
		c->times++; /* XDP programs are not preempted by others on their CPU */
	return why;
}
