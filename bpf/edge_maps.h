/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * The edge's maps. Sizes are what a load without wishes gets; edge.Options sets
 * them. "Set" is dataplane/edge's Set, the only writer in user space; it has the
 * arrays mapped into its memory.
 */
#pragma once
#include "edge_layout.h"

enum {
	BPF_MAP_TYPE_PROG_ARRAY = 3,
	BPF_MAP_TYPE_LPM_TRIE = 11,
	BPF_F_NO_COMMON_LRU = 1U << 1,
	EDGE_FILTER_WORDS = 1024,
	EDGE_NAT_OUT = 0,
	EDGE_NAT_IN = 1,
};

/* This node's addresses. Key: 0. Writer: Set. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct edge_config);
} edge_config SEC(".maps");

/* Where clients send to. Key: address, port, protocol. Value: service id.
 * Writer: Set. Size: two for each service. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 16384);
	__type(key, struct frontend_key);
	__type(value, struct edge_frontend);
} edge_frontends SEC(".maps");

/* Virtual addresses: whatever else comes for them is refused. Value: 1; only
 * its presence counts. Writer: Set. Size: as frontends. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 16384);
	__type(key, struct address);
	__type(value, __u32);
} edge_addresses SEC(".maps");

/* Which addresses may be virtual: bit edge_filter_bit() of the whole, a set bit of
 * which a foreign address may share. Key: word. Writer: Set. Size: 8 KiB, so that
 * it stays in the cache and that even thousands of addresses let few others by. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, EDGE_FILTER_WORDS);
	__type(key, __u32);
	__type(value, __u64);
} edge_filter SEC(".maps");

/* Services. Key: service id, from 1. Writer: Set. Size: 64 bytes each. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 8192);
	__type(key, __u32);
	__type(value, struct edge_service);
} edge_services SEC(".maps");

/* Names of services, by which a restarted agent knows the ids. Writer and
 * reader: Set. Size: as services. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 8192);
	__type(key, __u32);
	__type(value, struct service_name);
} edge_names SEC(".maps");

/* Runs of slots. Key: slot. Writer: Set, only where no published run is. Size:
 * 8 bytes each; each change needs room for the run beside the old one. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1048576);
	__type(key, __u32);
	__type(value, struct edge_slot);
} edge_slots SEC(".maps");

/* Backends, each of one service. Key: backend id, from 1. Writer: Set. Size: 64
 * bytes each. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 32768);
	__type(key, __u32);
	__type(value, struct edge_backend);
} edge_backends SEC(".maps");

/* Ways to next machines. Key: hop id, from 1. Writer: Set. Size: one for each
 * gateway or neighbour; a backend without one costs a look-up in the kernel. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, struct edge_hop);
} edge_hops SEC(".maps");

/* The connection cache: flows whose backend is not what the table says by
 * itself. One table for all CPUs, so that an ICMP error finds its flow wherever
 * it arrives, with a list of the least recent on each CPU. Writer and reader:
 * programs. Size: flows that are open while slots have a previous backend. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(map_flags, BPF_F_NO_COMMON_LRU);
	__uint(max_entries, 262144);
	__type(key, struct edge_flow_key);
	__type(value, struct edge_memory);
} edge_flows SEC(".maps");

/* Where the first of a packet's fragments went. Writer and reader: programs.
 * Size: fragmented packets under way. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct edge_fragment_key);
	__type(value, struct edge_memory);
} edge_fragments SEC(".maps");

/* QUIC connections by the ids that servers gave them. Writer and reader:
 * programs. Size: connections at one time, with a few ids each. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 131072);
	__type(key, struct edge_quic_key);
	__type(value, struct edge_memory);
} edge_quic_ids SEC(".maps");

/* Clients' networks of services with an allow list. Key: service and prefix.
 * Value: 1. Writer: Set. Size: all lists together. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct edge_allow_key);
	__type(value, __u32);
} edge_allowed SEC(".maps");

/* Rate of new connections. Key: service id. Writer and reader: programs. Size:
 * as services. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 8192);
	__type(key, __u32);
	__type(value, struct edge_syn);
} edge_syns SEC(".maps");

/* When the next ICMP answer is due, on each CPU. Key: 0. Writer and reader:
 * programs. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} edge_answers SEC(".maps");

/* Packets by service. Key: service id. Writer: programs; Set zeroes an id before
 * it gives it away anew. Reader: Counters. Size: as services. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 8192);
	__type(key, __u32);
	__type(value, struct edge_service_count);
} edge_service_counts SEC(".maps");

/* Key: enum edge_reason. Writer: programs. Reader: Counters. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, EDGE_REASON_MAX);
	__type(key, __u32);
	__type(value, struct edge_count);
} edge_reasons SEC(".maps");

/* Malformed packets. Key: enum packet_fault. Writer: programs. Reader: Counters. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, FAULT_MAX);
	__type(key, __u32);
	__type(value, struct edge_count);
} edge_faults SEC(".maps");

/* From the core to the NAT program, on one CPU. Key: 0. Writer and reader:
 * programs. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct edge_parcel);
} edge_parcels SEC(".maps");

/* The NAT programs. Key: EDGE_NAT_OUT for packets to backends, EDGE_NAT_IN for
 * answers. Writer: Set. Reader: the core's jump. One map for each kind of program. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u32);
} edge_nat_xdp SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u32);
} edge_nat_tcx SEC(".maps");
