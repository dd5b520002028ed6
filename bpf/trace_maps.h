/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * The maps of trace.c. They live as long as somebody watches. "Tracer" is
 * dataplane/trace's, the only one in user space that reads or writes them.
 */
#pragma once
#include "trace_layout.h"

/* What tracer may change before the programs are loaded: how many flows may
 * begin, and drops be told, in 2^27 ns on each CPU, and the reasons that are
 * everyday's. */
volatile const __u32 flow_limit = 134;
volatile const __u32 drop_limit = 134;
/* The id of the cgroup that is watched; 0: all. */
volatile const __u64 only_cgroup;
volatile const __u8 everyday[DROP_REASONS];

/* For nobody to read: what the ring holds is described in the object only if
 * something with a name is made of it. */
const struct flow_event *volatile const flow_event_type;
const struct drop_event *volatile const drop_event_type;

/* TCP flows that are followed. Key: the socket's place in the kernel's memory.
 * Writer: programs. Reader: programs, tracer for those that stay open. Size:
 * made for the flows that are open at once; those beyond are counted. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, __u64);
	__type(value, struct flow);
} flows SEC(".maps");

/* TCP sockets on the way from connect() to their first packet. Key: cookie.
 * Writer: programs; tracer deletes what is left behind, and tells of it. Size:
 * what lies between two looks of tracer; more is not told. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64);
	__type(value, struct flow);
} attempts SEC(".maps");

/* UDP flows, which nobody ends. Writer: programs; tracer deletes quiet ones.
 * Size: the least recent give way untold. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct datagram_flow_key);
	__type(value, struct flow);
} datagram_flows SEC(".maps");

/* Events of both kinds. Writer: programs. Reader: tracer. Size: some 10,000
 * flows; what comes when it is full is counted. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 21);
} events SEC(".maps");

/* Key: 0. Writer: programs. Reader: tracer. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct trace_count);
} trace_counts SEC(".maps");

/* All drops, told or not. Key: reason. Writer: programs. Reader: tracer. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, DROP_REASONS);
	__type(key, __u32);
	__type(value, __u64);
} drop_counts SEC(".maps");

/* The balancer's own, of maps.h, where it runs; only read here. Without it
 * tracer makes them of one element. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PLACES);
	__type(key, __u32);
	__type(value, struct peer);
} peers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, struct peer);
} displaced_peers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PLACES);
	__type(key, __u32);
	__type(value, struct peer);
} correspondents SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, struct peer);
} displaced_correspondents SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, struct backend);
} backends SEC(".maps");
