/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* What the kernel shows a program of a packet, UAPI as in kernel.h. */
#pragma once
#include "kernel.h"

struct __sk_buff {
	__u32 len;
	__u32 pkt_type;
	__u32 mark;
	__u32 queue_mapping;
	__u32 protocol; /* 16 bits in network byte order */
	__u32 vlan_present;
};

/* dataplane.DeliveredMark. */
#define DELIVERED_MARK 0x1000

/* What a program at TCX returns (Linux 6.6): NEXT leaves the word to others. */
enum { TCX_NEXT = -1, TCX_DROP = 2 };

enum {
	BPF_ADJ_ROOM_MAC = 1,
	BPF_F_ADJ_ROOM_DECAP_L3_IPV4 = 1U << 7,
	BPF_F_ADJ_ROOM_DECAP_L3_IPV6 = 1U << 8,
	BPF_F_RECOMPUTE_CSUM = 1U << 0,
	BPF_F_PSEUDO_HDR = 1U << 4,
	BPF_F_MARK_MANGLED_0 = 1U << 5,
};
