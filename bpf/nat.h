/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Delivery by NAT, for edge.c: a client's packet leaves from the edge node's
 * own address with a port of our range, so that the backend answers to here,
 * and the answer goes on to the client from the virtual address.
 *
 *	struct nat_packet p = { .l3 = ..., .l4 = ..., .v6 = ..., .protocol = ... };
 *		(v6 and protocol best as constants, one call for each: the verifier
 *		follows every combination of what it does not know)
 *
 *	nat_forward(data, data_end, &p, &backend_addr, backend_port_be)
 *		after a backend was picked for a packet to a virtual address. With
 *		protocol ICMP or ICMPv6: for an error whose quoted packet is one from
 *		the virtual address; its backend is the one that the quoted flow picks.
 *	nat_reply(data, data_end, &p)
 *		for every packet that is for no virtual address.
 *
 * Both change addresses, ports and checksums in place and move nothing: all
 * pointers into the packet stay valid, unless p.skb is set. NAT_REWRITTEN: send
 * it on (route, MAC addresses and TTL are the caller's; p.back is the way that
 * the flow's packets came). NAT_NOT_OURS (nat_reply only): pass it
 * on untouched (stray answers too: the kernel resets them). All others: drop;
 * nat_counts has them already, so the caller's own drop counter need not tell
 * them apart. Packets that are fragments (the caller knows) are dropped through
 * nat_drop(NAT_FRAGMENT).
 *
 * User space writes nat_config: the addresses and the range of ports. The range
 * must lie outside of net.ipv4.ip_local_port_range or be listed in
 * net.ipv4.ip_local_reserved_ports, or else connections of the node itself meet
 * with ours; 50000-65535 with the reservation is what the edge uses.
 */
#pragma once
#include "nat_find.h"
#include "nat_rewrite.h"

static __always_inline __u32 nat_tcp_state(const struct wire_tcp *tcp, __u32 fin)
{
	return (tcp->flags & WIRE_TCP_FIN ? fin : 0) | (tcp->flags & WIRE_TCP_RST ? NAT_RESET : 0);
}

static __always_inline const struct address *nat_own(const struct nat_config *c, int v6)
{
	const struct address *own = v6 ? &c->own6 : &c->own4;

	return c->ports && (own->half_be[0] | own->half_be[1]) ? own : 0;
}

static __always_inline void nat_search_begin(struct nat_search *s, const struct nat_config *c, const struct address *backend, __be16 backend_port_be)
{
	s->key.backend = *backend;
	s->key.backend_port_be = backend_port_be;
	s->first = c->first_port;
	s->ports = c->ports;
}

/* Somebody cannot deliver what a virtual address sent: the backend must hear. */
static __always_inline enum nat_result nat_forward_error(void *data, void *data_end, const struct nat_packet *p, const struct nat_config *c, const struct address *own, const struct address *backend, __be16 backend_port_be)
{
	struct nat_error e = {};
	struct nat_ends outer = {}, quoted = {};
	struct nat_search s = {};
	int result;

	if (!nat_read_error(data, data_end, p, &e))
		return nat_drop(NAT_MALFORMED);
	if (!wire_icmp_is_error(p->v6, e.icmp->type))
		return nat_drop(NAT_UNKNOWN);
	nat_search_begin(&s, c, backend, backend_port_be);
	s.key.protocol = e.protocol;
	s.client = e.quoted.dest;
	s.vip = e.quoted.source;
	s.client_port_be = e.quoted.dest_port_be;
	s.vip_port_be = e.quoted.source_port_be;
	result = nat_find(&s);
	if (result != NAT_REWRITTEN)
		return nat_drop(result);
	/* From us, whoever it was: the backend may have no route to others. */
	outer.source = *own;
	outer.dest = *backend;
	quoted.source = *backend;
	quoted.dest = *own;
	quoted.source_port_be = backend_port_be;
	quoted.dest_port_be = s.key.port_be;
	nat_rewrite_error(p, &e, &outer, &quoted);
	return nat_drop(NAT_REWRITTEN);
}

static __always_inline enum nat_result nat_forward(void *data, void *data_end, const struct nat_packet *p, const struct address *backend, __be16 backend_port_be)
{
	__u32 zero = 0;
	const struct nat_config *c = bpf_map_lookup_elem(&nat_config, &zero);
	const struct address *own = c ? nat_own(c, p->v6) : 0;
	struct nat_ends old = {}, new = {};
	struct nat_search s = {};
	struct wire_tcp *tcp;
	void *ip, *l4;
	int result;

	if (!own)
		return nat_drop(NAT_NO_ADDRESS);
	if (p->protocol == WIRE_ICMP || p->protocol == WIRE_ICMP6)
		return nat_forward_error(data, data_end, p, c, own, backend, backend_port_be);
	ip = nat_at(data, data_end, p->l3, p->v6 ? sizeof(struct wire_ip6) : sizeof(struct wire_ip4));
	l4 = nat_at(data, data_end, p->l4, sizeof(struct wire_udp));
	tcp = p->protocol == IPPROTO_TCP ? nat_at(data, data_end, p->l4, sizeof(*tcp)) : 0;
	if (!ip || !l4 || (p->protocol == IPPROTO_TCP && !tcp))
		return nat_drop(NAT_MALFORMED);
	nat_read_ip(ip, p->v6, &old);
	nat_read_ports(l4, &old);
	nat_search_begin(&s, c, backend, backend_port_be);
	s.key.protocol = p->protocol;
	s.client = old.source;
	s.vip = old.dest;
	s.client_port_be = old.source_port_be;
	s.vip_port_be = old.dest_port_be;
	s.allocate = 1;
	s.back = p->back;
	if (tcp) {
		s.begins = (tcp->flags & (WIRE_TCP_SYN | WIRE_TCP_ACK)) == WIRE_TCP_SYN;
		s.set = nat_tcp_state(tcp, NAT_CLIENT_FIN);
	}
	result = nat_find(&s);
	if (result == NAT_ALLOCATED)
		nat_drop(NAT_ALLOCATED);
	else if (result != NAT_REWRITTEN)
		return nat_drop(result);
	new.source = *own;
	new.dest = *backend;
	new.source_port_be = s.key.port_be;
	new.dest_port_be = backend_port_be;
	nat_rewrite(ip, l4, tcp, p, &old, &new);
	return nat_drop(NAT_REWRITTEN);
}

/* Copies the flow of an answer, if it is one. */
static __always_inline struct nat_flow *nat_flow_get(const struct nat_key *key, struct nat_flow *copy)
{
	struct nat_flow *f = bpf_map_lookup_elem(&nat_flows, key);

	if (!f)
		return 0;
	copy->client = f->client;
	copy->vip = f->vip;
	copy->client_port_be = f->client_port_be;
	copy->vip_port_be = f->vip_port_be;
	copy->back = f->back;
	asm volatile("" ::: "memory");
	return nat_key_equal(&f->self, key) ? f : 0;
}

/* Somebody cannot deliver what we sent to a backend: the client must hear. */
static __always_inline enum nat_result nat_reply_error(void *data, void *data_end, struct nat_packet *p, const struct address *own)
{
	struct nat_error e = {};
	struct nat_ends outer = {}, quoted = {};
	struct nat_key key = {};
	struct nat_flow flow;

	if (!nat_read_error(data, data_end, p, &e) || !wire_icmp_is_error(p->v6, e.icmp->type))
		return NAT_NOT_OURS;
	if (!wire_address_equal(&e.outer.dest, own) || !wire_address_equal(&e.quoted.source, own))
		return NAT_NOT_OURS;
	key.backend = e.quoted.dest;
	key.backend_port_be = e.quoted.dest_port_be;
	key.port_be = e.quoted.source_port_be;
	key.protocol = e.protocol;
	if (!nat_flow_get(&key, &flow))
		return NAT_NOT_OURS;
	p->back = flow.back;
	/* The client knows the virtual address, not the backend. */
	outer.source = wire_address_equal(&e.outer.source, &key.backend) ? flow.vip : e.outer.source;
	outer.dest = flow.client;
	quoted.source = flow.client;
	quoted.dest = flow.vip;
	quoted.source_port_be = flow.client_port_be;
	quoted.dest_port_be = flow.vip_port_be;
	nat_rewrite_error(p, &e, &outer, &quoted);
	return nat_drop(NAT_REWRITTEN);
}

static __always_inline enum nat_result nat_reply(void *data, void *data_end, struct nat_packet *p)
{
	__u32 zero = 0;
	const struct nat_config *c = bpf_map_lookup_elem(&nat_config, &zero);
	const struct address *own = c ? nat_own(c, p->v6) : 0;
	struct nat_ends old = {}, new = {};
	struct nat_key key = {};
	struct nat_flow *f, flow;
	__u32 set = NAT_ANSWERED, port;
	struct wire_tcp *tcp;
	void *ip, *l4;

	if (!own)
		return NAT_NOT_OURS;
	if (p->protocol == WIRE_ICMP || p->protocol == WIRE_ICMP6)
		return nat_reply_error(data, data_end, p, own);
	if (p->protocol != IPPROTO_TCP && p->protocol != IPPROTO_UDP)
		return NAT_NOT_OURS;
	ip = nat_at(data, data_end, p->l3, p->v6 ? sizeof(struct wire_ip6) : sizeof(struct wire_ip4));
	l4 = nat_at(data, data_end, p->l4, sizeof(struct wire_udp));
	tcp = p->protocol == IPPROTO_TCP ? nat_at(data, data_end, p->l4, sizeof(*tcp)) : 0;
	if (!ip || !l4 || (p->protocol == IPPROTO_TCP && !tcp))
		return NAT_NOT_OURS;
	nat_read_ip(ip, p->v6, &old);
	nat_read_ports(l4, &old);
	port = bpf_ntohs(old.dest_port_be) - c->first_port;
	if (port >= c->ports || !wire_address_equal(&old.dest, own))
		return NAT_NOT_OURS;
	key.backend = old.source;
	key.backend_port_be = old.source_port_be;
	key.port_be = old.dest_port_be;
	key.protocol = p->protocol;
	f = nat_flow_get(&key, &flow);
	if (!f)
		return NAT_NOT_OURS;
	if (tcp)
		set |= nat_tcp_state(tcp, NAT_BACKEND_FIN);
	nat_touch(f, bpf_ktime_get_coarse_ns(), set, 0);
	p->back = flow.back;
	new.source = flow.vip;
	new.dest = flow.client;
	new.source_port_be = flow.vip_port_be;
	new.dest_port_be = flow.client_port_be;
	nat_rewrite(ip, l4, tcp, p, &old, &new);
	return nat_drop(NAT_REWRITTEN);
}
