/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Every map. Sizes are what a load without wishes gets; Set replaces those of
 * services, backends and slots by larger ones when they are full. "Set" is
 * dataplane/program's Set, the only writer in user space; "programs" are those of
 * balance.c. The arrays are mapped into Set's memory, so it writes whole words
 * and reads everything back without a system call.
 */
#pragma once
#include "layout.h"

/* Our address ranges. Key: 0. Writer: Set. Reader: programs, first of all.
 * Size: one element, so that the look-up is an address and no call. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct ranges);
} ranges SEC(".maps");

/* Virtual addresses outside of the ranges. Key: address. Value: 1; only its
 * presence counts. Writer: Set. Reader: programs. Size: as many as frontends. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 2048);
	__type(key, struct address);
	__type(value, __u32);
} addresses SEC(".maps");

/* Where clients connect. Key: address, port, protocol. Value: service id.
 * Writer: Set. Reader: programs. Size: two for each service; memory is taken
 * for what exists alone. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 2048);
	__type(key, struct frontend_key);
	__type(value, struct frontend);
} frontends SEC(".maps");

/* Services. Key: service id, from 1. Writer: Set, and programs of open. Reader:
 * programs. Size: 64 bytes each. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct service);
} services SEC(".maps");

/* Names of services, by which a restarted agent knows the ids. Key: service
 * id. Writer and reader: Set. Size: as services. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct service_name);
} names SEC(".maps");

/* Runs of slots, one run for each service. Key: slot / 16. Value: backend ids.
 * Writer: Set, only where no published run is. Reader: programs. Size: 64 Ki
 * slots of 4 bytes: each change needs room for the run beside the old one. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, struct slot_chunk);
} slots SEC(".maps");

/* Backends, each of one service. Key: backend id, from 1. Writer: Set, and
 * programs of the counters. Reader: programs. Size: 64 bytes each. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, struct backend);
} backends SEC(".maps");

/* Which backend a client of a service with affinity had last. Writer and
 * reader: programs. Size: clients of one node that are in their time-out; the
 * least recent give way. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 32768);
	__type(key, struct affinity_key);
	__type(value, struct affinity);
} affinities SEC(".maps");

/* The virtual peers of connected sockets. Key: socket cookie % PLACES. Writer:
 * connect and release programs. Reader: getpeername and recvmsg programs. Size:
 * 32 bytes for each place; sockets beyond that go to the next map. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PLACES);
	__type(key, __u32);
	__type(value, struct peer);
} peers SEC(".maps");

/* The same for sockets whose place is taken. Key: socket cookie. Size: the
 * least recently used give way, and show the backend instead of the VIP. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, struct peer);
} displaced_peers SEC(".maps");

/* How many elements the maps displaced_* hold. Key: 0. Writer and reader:
 * programs. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct displaced);
} displaced SEC(".maps");

/* The latest virtual peers of sockets that send to given addresses, connected
 * or not. Key: socket cookie % PLACES. Writer and reader: sendmsg programs;
 * writer: release program; reader: recvmsg programs. Size: as peers. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PLACES);
	__type(key, __u32);
	__type(value, struct peer);
} correspondents SEC(".maps");

/* The same for sockets whose place is taken. Key: socket cookie. Size: as
 * displaced_peers. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, struct peer);
} displaced_correspondents SEC(".maps");

/* The earlier correspondents of sockets that send to several virtual
 * addresses. Key: socket cookie and backend. Writer: sendmsg programs. Reader:
 * recvmsg and sendmsg programs. Size: answers under way; the least recent give
 * way. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct datagram_key);
	__type(value, struct datagram);
} datagrams SEC(".maps");

/* Refusals by service. Key: service id. Writer: programs; Set zeroes an id
 * before it gives it away anew. Reader: Counters. Size: as services. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct service_count);
} service_counts SEC(".maps");

/* Verdicts by reason. Key: enum reason. Writer: programs. Reader: Counters. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, REASON_MAX);
	__type(key, __u32);
	__type(value, struct reason_count);
} reasons SEC(".maps");
