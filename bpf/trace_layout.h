/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * What the programs of trace.c keep and tell. dataplane/trace reads the same
 * bytes by the Go types that are generated from these.
 */
#pragma once
#include "layout.h"

#define COMMAND_SIZE 16

enum flow_flag {
	FLOW_ACCEPTED = 1, /* the other side began it */
};

/* One end of a flow, as a socket of this machine has it. Times are of
 * CLOCK_MONOTONIC; 0: it has not come to that. */
struct flow {
	struct address local;
	struct address remote; /* the backend, where there is one */
	struct address vip;    /* that the socket was connected to; all zero: none */
	__u64 began_ns;
	__u64 opened_ns;
	__u64 last_ns; /* of UDP: the latest datagram */
	__u64 ended_ns;
	__u64 sent;     /* bytes, without headers and repetitions */
	__u64 received; /* bytes */
	__u32 netns;    /* the inode of the network namespace */
	__u32 pid;      /* 0: not known (yet) */
	__u32 retransmits;
	__u32 rtt_us;
	__be16 local_port_be;
	__be16 remote_port_be;
	__be16 vip_port_be;
	__u16 fault; /* errno that ended it */
	enum flow_flag flags; /* ored */
	__u8 protocol;
	__u8 state; /* of TCP, the last before the end */
	__u8 pad[2];
	__u8 command[COMMAND_SIZE];
};

/* UDP: a socket has as many flows as correspondents. */
struct datagram_flow_key {
	__u64 socket; /* cookie */
	struct address remote;
	__be16 port_be;
	__u16 pad[3];
};

enum trace_kind {
	TRACE_FLOW = 1,
	TRACE_DROP = 2,
};

/* A flow that has ended. */
struct flow_event {
	enum trace_kind kind;
	__u32 pad;
	__u64 socket;
	struct flow flow;
};

/* A packet that the kernel threw away. */
struct drop_event {
	enum trace_kind kind;
	__u32 reason; /* enum skb_drop_reason of this kernel */
	__u64 time_ns;
	struct address source;
	struct address destination;
	__be16 source_port_be; /* 0: none, as in a later fragment */
	__be16 destination_port_be;
	__be16 ether_be; /* protocol above the link: IPv4, IPv6, ARP */
	__u8 protocol;   /* above IP */
	__u8 tcp_flags;
	__u32 length; /* bytes */
	__u32 netns;
	__u32 ifindex;
	__u32 pid; /* of the socket that sent it; 0: not known */
	__u8 interface[16];
	__u8 command[COMMAND_SIZE];
};

/* Counted for each CPU: what was told, and what was not. */
struct trace_count {
	__u64 window; /* the time that used is of */
	__u32 flows;  /* flows begun in this time */
	__u32 drops;  /* drops told in it */
	__u64 told;
	__u64 lost;     /* the ring was full */
	__u64 skipped;  /* flows beyond the limit of a time: never followed */
	__u64 unplaced; /* flows for which the map had no room */
	__u64 unlisted; /* drops beyond the limit of a time: counted alone */
};

/* The reasons above the core's, of subsystems, share the last. */
#define DROP_REASONS 256
