// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//go:build ignore

/*
 * The backends' side of the edge, at TCX (Linux 6.6). What arrives in an edge
 * node's tunnel goes on to the backend as if the client had sent it there; what
 * the backend answers leaves from the virtual address, straight to the client.
 * All other packets pass untouched.
 */
#include "deliver_rewrite.h"
#include "deliver_tunnel.h"

#define SECOND 1000000000ULL

/* A function of its own, whose signature brings the enum into the BTF, from
 * where Go has it. */
static __attribute__((noinline)) int drop(enum fate why)
{
	deliver_count(why);
	return TCX_DROP;
}

/* The edge node has judged the packet; the zones' rules of this node would see a
 * stranger who speaks to a backend, and are told by the mark. */
static __always_inline int delivered(struct __sk_buff *skb, enum fate how)
{
	skb->mark |= DELIVERED_MARK;
	deliver_count(how);
	return TCX_NEXT;
}

static __always_inline int target_is_known(const struct packet *p, const struct tunnel *t, const struct address *vip, __be16 vip_port_be)
{
	struct target target = {
		.vip = *vip,
		.backend = t->backend,
		.vip_port_be = vip_port_be,
		.backend_port_be = t->backend_port_be,
		.protocol = p->protocol,
	};

	return !!bpf_map_lookup_elem(&targets, &target);
}

static __always_inline int flow_key_equal(const struct flow_key *a, const struct flow_key *b)
{
	return wire_address_equal(&a->client, &b->client) & wire_address_equal(&a->backend, &b->backend) &
	       (a->client_port_be == b->client_port_be) & (a->backend_port_be == b->backend_port_be) & (a->protocol == b->protocol);
}

static __always_inline void flow_touch(struct flow *f, __u64 now)
{
	/* Written seldom, so that CPUs do not fight for the line. */
	if (now - f->used_ns > SECOND)
		f->used_ns = now;
}

/* The largest segment that the client may send through this tunnel. */
static __always_inline __u16 tunnel_mss(const struct tunnel *t)
{
	__u32 zero = 0, headers = t->inner - ETHERNET + (t->v6 ? sizeof(struct wire_ip6) : sizeof(struct wire_ip4)) + sizeof(struct wire_tcp);
	const struct config *c = bpf_map_lookup_elem(&config, &zero);
	__u32 mtu = c && c->mtu ? c->mtu : 1500;

	if (mtu > 65535)
		mtu = 65535;
	return mtu > headers ? mtu - headers : 0;
}

/* Writes only when the client is new or comes by another virtual address. */
static __always_inline int flow_remember(const struct packet *p, const struct tunnel *t)
{
	struct flow fresh = {};
	struct flow *f;
	__u16 mss = tunnel_mss(t);

	fresh.self.client = p->source;
	fresh.self.backend = t->backend;
	fresh.self.client_port_be = p->source_port_be;
	fresh.self.backend_port_be = t->backend_port_be;
	fresh.self.protocol = p->protocol;
	fresh.used_ns = bpf_ktime_get_coarse_ns();
	f = bpf_map_lookup_elem(&flows, &fresh.self);
	if (f && flow_key_equal(&f->self, &fresh.self) && wire_address_equal(&f->vip, &p->dest) && f->vip_port_be == p->dest_port_be && f->mss == mss) {
		flow_touch(f, fresh.used_ns);
		return 1;
	}
	fresh.vip = p->dest;
	fresh.vip_port_be = p->dest_port_be;
	fresh.mss = mss;
	return bpf_map_update_elem(&flows, &fresh.self, &fresh, BPF_ANY) == 0;
}

static __always_inline void fragment_key(const struct packet *p, struct fragment_key *key)
{
	key->source = p->source;
	key->dest = p->dest;
	key->id_be = p->id_be;
	key->protocol = p->protocol;
}

static __always_inline int fragment_remember(const struct packet *p, const struct address *becomes, const struct address *backend)
{
	struct fragment fresh = {};

	fragment_key(p, &fresh.self);
	fresh.becomes = *becomes;
	fresh.backend = *backend;
	return bpf_map_update_elem(&fragments, &fresh.self, &fresh, BPF_ANY) == 0;
}

/* What the address of a later fragment becomes. */
static __always_inline int fragment_find(const struct packet *p, struct address *becomes)
{
	struct fragment_key key = {};
	const struct fragment *f;

	fragment_key(p, &key);
	f = bpf_map_lookup_elem(&fragments, &key);
	if (!f)
		return 0;
	*becomes = f->becomes;
	asm volatile("" ::: "memory");
	return wire_address_equal(&f->self.source, &key.source) && wire_address_equal(&f->self.dest, &key.dest) &&
	       f->self.id_be == key.id_be && f->self.protocol == key.protocol;
}

/* Moves what was read to where tunnel_strip has put it. */
static __always_inline void packet_move(struct packet *p, __u32 by)
{
	p->l3 -= by;
	p->l4 -= by;
	p->end -= by;
}

/* Somebody on the way to the client tells the virtual address that its answers
 * do not get through; path MTU discovery lives on this. */
static __attribute__((noinline)) int deliver_error(struct __sk_buff *skb, struct packet *p, struct tunnel *t)
{
	struct change c = { .to = t->backend, .to_port_be = t->backend_port_be };
	struct packet quoted;
	enum fate why;

	if (!is_error(skb, p))
		return drop(FATE_PROTOCOL);
	if (!quoted_read(skb, p, &quoted) || !wire_address_equal(&quoted.source, &p->dest))
		return drop(FATE_BAD_INNER);
	if (!target_is_known(&quoted, t, &quoted.source, quoted.source_port_be))
		return drop(FATE_UNKNOWN);
	why = tunnel_strip(skb, t);
	if (why != FATE_DELIVERED)
		return drop(why);
	packet_move(p, t->inner - ETHERNET);
	packet_move(&quoted, t->inner - ETHERNET);
	{
		struct change inner = c;

		inner.source = 1;
		if (!rewrite_error(skb, p, &c, &quoted, &inner))
			return drop(FATE_KERNEL);
	}
	return delivered(skb, FATE_ERROR_DELIVERED);
}

static __attribute__((noinline)) int deliver_later_fragment(struct __sk_buff *skb, struct packet *p, struct tunnel *t)
{
	struct change c = {};
	enum fate why;

	if (!fragment_find(p, &c.to) || !wire_address_equal(&c.to, &t->backend))
		return drop(FATE_LATE_FRAGMENT);
	why = tunnel_strip(skb, t);
	if (why != FATE_DELIVERED)
		return drop(why);
	packet_move(p, t->inner - ETHERNET);
	if (!rewrite_address(skb, p, &c))
		return drop(FATE_KERNEL);
	return delivered(skb, FATE_DELIVERED);
}

static __always_inline int deliver(struct __sk_buff *skb, struct tunnel *t)
{
	struct change c = { .to = t->backend, .to_port_be = t->backend_port_be };
	struct packet p;
	enum fate why;

	if (!packet_read(skb, t->inner, t->end, t->v6, IN_TUNNEL, &p))
		return drop(FATE_BAD_INNER);
	if (p.fragment == LATER_FRAGMENT)
		return deliver_later_fragment(skb, &p, t);
	if (p.protocol != IPPROTO_TCP && p.protocol != IPPROTO_UDP)
		return deliver_error(skb, &p, t);
	/* Whoever can send as an edge node gets no further than its services. */
	if (!target_is_known(&p, t, &p.dest, p.dest_port_be))
		return drop(FATE_UNKNOWN);
	/* Without the memory the answer would come from the wrong address. */
	if (!flow_remember(&p, t))
		return drop(FATE_NO_MEMORY);
	if (p.fragment == FIRST_FRAGMENT && !fragment_remember(&p, &t->backend, &t->backend))
		return drop(FATE_NO_MEMORY);
	why = tunnel_strip(skb, t);
	if (why != FATE_DELIVERED)
		return drop(why);
	packet_move(&p, t->inner - ETHERNET);
	if (!rewrite(skb, &p, &c))
		return drop(FATE_KERNEL);
	return delivered(skb, FATE_DELIVERED);
}

/*
 * A client that begins to speak to the backend's own address, from a port from
 * which it spoke to a virtual one before, wants its answers from there.
 */
static __attribute__((noinline)) int forget(struct __sk_buff *skb, int v6)
{
	struct flow_key key = {};
	struct packet p;

	if (!packet_read(skb, ETHERNET, skb->len, v6, IN_FRAME, &p) || p.fragment == LATER_FRAGMENT)
		return TCX_NEXT;
	if (p.protocol == IPPROTO_TCP ? (p.flags & (WIRE_TCP_SYN | WIRE_TCP_ACK)) != WIRE_TCP_SYN : p.protocol != IPPROTO_UDP)
		return TCX_NEXT;
	key.client = p.source;
	key.backend = p.dest;
	key.client_port_be = p.source_port_be;
	key.backend_port_be = p.dest_port_be;
	key.protocol = p.protocol;
	if (bpf_map_lookup_elem(&flows, &key) && !bpf_map_delete_elem(&flows, &key))
		deliver_count(FATE_FORGOTTEN);
	return TCX_NEXT;
}

SEC("tcx/ingress")
int weir_deliver(struct __sk_buff *skb)
{
	struct tunnel t = {};
	enum fate why;
	int v6 = skb->protocol == bpf_htons(WIRE_ETH_IP6);

	/* A tagged packet is its VLAN device's, and passes there too. */
	if ((!v6 && skb->protocol != bpf_htons(WIRE_ETH_IP4)) || skb->vlan_present)
		return TCX_NEXT;
	why = tunnel_read(skb, v6, &t);
	if (why == FATE_DELIVERED)
		return deliver(skb, &t);
	if (why == FATE_NOT_OURS)
		return forget(skb, v6);
	return drop(why);
}

/* Copies the flow and gives whether there is one. */
static __always_inline struct flow *flow_get(const struct flow_key *key, struct change *c, __u16 *mss)
{
	struct flow *f = bpf_map_lookup_elem(&flows, key);

	if (!f)
		return 0;
	c->to = f->vip;
	c->to_port_be = f->vip_port_be;
	*mss = f->mss;
	asm volatile("" ::: "memory");
	return flow_key_equal(&f->self, key) ? f : 0;
}

/* The node, or a router before a container, tells the client that something is
 * wrong with what it sent to the virtual address. */
static __attribute__((noinline)) int answer_error(struct __sk_buff *skb, struct packet *p)
{
	struct flow_key key = {};
	struct change inner = {}, outer;
	struct packet quoted;
	__u16 mss;

	if (!is_error(skb, p) || !quoted_read(skb, p, &quoted))
		return TCX_NEXT;
	key.client = quoted.source;
	key.backend = quoted.dest;
	key.client_port_be = quoted.source_port_be;
	key.backend_port_be = quoted.dest_port_be;
	key.protocol = quoted.protocol;
	if (!wire_address_equal(&p->dest, &quoted.source) || !flow_get(&key, &inner, &mss))
		return TCX_NEXT;
	outer = inner;
	outer.source = 1;
	/* Routers speak for themselves, the backend as the virtual address. */
	if (!rewrite_error(skb, p, wire_address_equal(&p->source, &key.backend) ? &outer : 0, &quoted, &inner))
		return drop(FATE_KERNEL);
	deliver_count(FATE_ERROR_ANSWERED);
	return TCX_NEXT;
}

static __attribute__((noinline)) int answer_later_fragment(struct __sk_buff *skb, struct packet *p)
{
	struct change c = { .source = 1 };

	if (!fragment_find(p, &c.to))
		return TCX_NEXT;
	if (!rewrite_address(skb, p, &c))
		return drop(FATE_KERNEL);
	deliver_count(FATE_ANSWERED);
	return TCX_NEXT;
}

/* A function of its own so that its stack and the errors' do not add up. */
static __attribute__((noinline)) int answer(struct __sk_buff *skb, struct packet *p)
{
	struct flow_key key = {};
	struct change c = { .source = 1 };
	struct flow *f;
	__u16 mss;

	key.client = p->dest;
	key.backend = p->source;
	key.client_port_be = p->dest_port_be;
	key.backend_port_be = p->source_port_be;
	key.protocol = p->protocol;
	f = flow_get(&key, &c, &mss);
	if (!f)
		return TCX_NEXT;
	flow_touch(f, bpf_ktime_get_coarse_ns());
	if (p->fragment == FIRST_FRAGMENT && !fragment_remember(p, &c.to, &p->source))
		return drop(FATE_NO_MEMORY);
	if (p->flags & WIRE_TCP_SYN && clamp(skb, p, mss))
		deliver_count(FATE_CLAMPED);
	if (!rewrite(skb, p, &c))
		return drop(FATE_KERNEL);
	deliver_count(FATE_ANSWERED);
	return TCX_NEXT;
}

SEC("tcx/egress")
int weir_answer(struct __sk_buff *skb)
{
	struct packet p;
	int v6 = skb->protocol == bpf_htons(WIRE_ETH_IP6);

	if ((!v6 && skb->protocol != bpf_htons(WIRE_ETH_IP4)) || skb->vlan_present)
		return TCX_NEXT;
	if (!packet_read(skb, ETHERNET, skb->len, v6, IN_FRAME, &p))
		return TCX_NEXT;
	if (p.fragment == LATER_FRAGMENT)
		return answer_later_fragment(skb, &p);
	if (p.protocol == IPPROTO_TCP || p.protocol == IPPROTO_UDP)
		return answer(skb, &p);
	return answer_error(skb, &p);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
