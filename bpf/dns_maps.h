/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * What dns_answer.c keeps. "Set", "Beat" and "Counters" are those of
 * dataplane/answers.
 */
#pragma once
#include "deliver_wire.h"

enum {
	DNS_LISTEN_MAX = 8,
	DNS_CLIENTS_MAX = 16,
	DNS_NAME_MAX = 128,    /* bytes of a name on the wire; longer ones are passed up */
	DNS_ADDRESSES_MAX = 8, /* of one type at a name; so no answer is ever cut */
	DNS_SOA_MAX = 248,
	DNS_ELSEWHERE = 255,   /* the count of a set that user space answers */
};

/* What becomes of a query to us; each is counted at its place. */
enum dns_fate {
	DNS_ANSWERED = 0,
	DNS_DENIED = 1,          /* answered: the name has no address of this type */
	/* These go up, to the proxy's socket. */
	DNS_PASS_STALE = 2,      /* user space has not been heard of */
	DNS_PASS_PACKET = 3,     /* fragments, lengths, addresses that nobody has */
	DNS_PASS_CHECKSUM = 4,
	DNS_PASS_MESSAGE = 5,    /* too long, a response, another opcode, other counts */
	DNS_PASS_TYPE = 6,       /* another type or class */
	DNS_PASS_EDNS = 7,       /* options, another version, other additional records */
	DNS_PASS_NAME = 8,       /* no name that is here */
	DNS_PASS_SET = 9,        /* the name is here, its set is not */
	DNS_PASS_KERNEL = 10,    /* the packet could not be made longer */
	DNS_PASS_CLIENT = 11,    /* whether this one may ask is for the packet filter */
	DNS_FATE_MAX = 12,
};

struct dns_range {
	struct address net;
	struct address mask;
};

struct dns_config {
	__u64 seed; /* of the names' hash; the same as long as there are names */
	struct address listen[DNS_LISTEN_MAX];
	struct dns_range clients[DNS_CLIENTS_MAX]; /* who may ask over other interfaces than lo */
	__u32 listen_count;
	__u32 client_count; /* 0: everybody */
	__be16 port_be;
	__be16 flags_be; /* of every answer, but for what the query adds */
	__u32 pad;
};

/* The addresses of one type: what is the same in all of their records. */
struct dns_set {
	__u64 head; /* owner, type, class, and the upper half of the TTL */
	__u32 rest; /* the lower half, and the data's length */
	__u8 count; /* 0: there is none; or DNS_ELSEWHERE */
	__u8 pad[3];
};

/*
 * The kernel gives the memory of an element that was deleted or replaced to the
 * next insert at once, while a program may still read it. It copies upwards, so
 * who reads downwards, first last, then the rest, then first and the name, and
 * finds first and last the same, has one value of one name.
 */
struct dns_name {
	__u64 first;                  /* differs with every value */
	__u64 name[DNS_NAME_MAX / 8]; /* on the wire, lower case, zeros behind it */
	struct dns_set a;
	struct dns_set aaaa;
	__be32 v4_be[DNS_ADDRESSES_MAX];
	__be64 v6_be[DNS_ADDRESSES_MAX * 2];
	__u32 zone;
	__u32 apex_length; /* bytes of the zone's name, which ends this one */
	__u64 last;        /* as first */
};

/* A zone's SOA record, from the type on. */
struct dns_zone {
	__u64 first; /* as in dns_name */
	__u64 size;  /* bytes of soa */
	__u64 soa[DNS_SOA_MAX / 8];
	__u64 last;
};

struct dns_beat {
	__u64 at_ns; /* of the monotonic clock */
};

struct dns_count {
	__u64 times;
};

struct dns_scratch {
	__u64 frame[80];
	__u64 lower[DNS_NAME_MAX / 8];
	__u64 name_length;
	__u64 start; /* of the frame in frame */
	__u64 head;  /* bytes before the message */
};

/* Key: 0. Writer: Set. Reader: program. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct dns_config);
} dns_config SEC(".maps");

/* Key: 0. Writer: Beat. Reader: program. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct dns_beat);
} dns_beat SEC(".maps");

/* Key: the seeded hash of a name. Writer: Set; a value is replaced as a whole.
 * Reader: program, which compares the name too. Size: the cluster's names that
 * have addresses; those that find no room are passed up. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 262144);
	__type(key, __u64);
	__type(value, struct dns_name);
} dns_names SEC(".maps");

/* Key: dns_name.zone. A hash, since an array's values change piecemeal. Writer:
 * Set. Reader: program. Size: the proxy's own bound is 255. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, struct dns_zone);
} dns_zones SEC(".maps");

/* Key: enum dns_fate. Writer: program. Reader: Counters. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, DNS_FATE_MAX);
	__type(key, __u32);
	__type(value, struct dns_count);
} dns_counts SEC(".maps");

/* The frame that is read, and written over with the answer. Key: 0. The program
 * runs in softirqs alone, of which a CPU runs one at a time. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct dns_scratch);
} dns_scratch SEC(".maps");

static __always_inline void dns_count(__u32 fate)
{
	struct dns_count *c = bpf_map_lookup_elem(&dns_counts, &fate);

	if (c)
		c->times++;
}
