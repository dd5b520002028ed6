// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//go:build ignore

/*
 * Balances packets at the edge: one core, run at XDP or, where that cannot be
 * attached, at TCX.
 *
 * Delivery by NAT is for programs of its own (edge_nat.c), since nat.h needs more
 * stack than the core leaves. The core jumps to them through the maps edge_nat_xdp
 * and edge_nat_tcx: to EDGE_NAT_OUT with a packet whose backend was picked
 * (edge_parcels says which), to EDGE_NAT_IN with every packet for the node's own
 * address in edge_config, if edge_config.nat says so. Where an element is empty,
 * the packet is dropped or passed.
 *
 * A backend on this very node: the core encapsulates as for any other, with
 * this node as the tunnel's end too, leaves the Ethernet addresses and passes the
 * packet on to what else is attached to the interface: the deliverer's TCX
 * program, which comes after XDP and after our own TCX program (we attach at the
 * head). It must take tunnels from this node itself.
 */
#include "edge_layout.h"
#include "edge_maps.h"
#include "edge_frame.h"
#include "edge_count.h"
#include "edge_pick.h"
#include "edge_quic.h"
#include "edge_admit.h"
#include "edge_fragment.h"
#include "edge_answer.h"
#include "edge_icmp.h"
#include "edge_route.h"
#include "edge_tunnel.h"

/* What is known of a packet that goes to a backend. */
struct edge_way {
	__u64 hash;
	__u64 service;
	__u64 backend;
};

/* No verdicts of XDP or TCX: the packet goes to way->backend, is not for a virtual
 * address, or is for a port that none serves. */
#define EDGE_DELIVER (-100)
#define EDGE_FOREIGN (-101)
#define EDGE_UNSERVED (-102)

/* A packet to a frontend. */
static __always_inline int edge_serve(void *ctx, const int xdp, const struct packet *p, struct edge_way *way)
{
	__u32 service = way->service;
	const struct edge_service *s = bpf_map_lookup_elem(&edge_services, &service);
	int begins = edge_begins(p);

	if (!s)
		return edge_drop(xdp, EDGE_DAMAGED, 0);
	if ((s->flags & EDGE_ALLOW) && !edge_client_allowed(service, &p->src))
		return edge_drop(xdp, EDGE_NOT_ALLOWED, service);
	if (begins && s->syn_ns && !edge_syn_admitted(service, s))
		return edge_drop(xdp, EDGE_SYN_SHED, service);
	way->hash = edge_hash(p);
	if (s->flags & EDGE_QUIC)
		way->backend = quic_pick(p, frame_data(ctx, xdp), frame_end(ctx, xdp), s, service, way->hash, &begins);
	else
		way->backend = edge_pick(p, s, service, way->hash);
	if (!way->backend)
		return edge_refuse(ctx, xdp, p, EDGE_NO_BACKEND, service);
	if (p->first_fragment)
		fragment_remember(p, way->backend);
	if (begins)
		edge_begun_count(service);
	return EDGE_DELIVER;
}

/* ICMP to a virtual address. */
static __always_inline int edge_icmp(void *ctx, const int xdp, const struct packet *p, struct edge_way *way)
{
	const void *data = frame_data(ctx, xdp), *end = frame_end(ctx, xdp);
	const struct wire_icmp *icmp = data + packet_l4(p);
	const struct edge_service *s;
	struct packet q = {};
	__u32 service;

	if ((const void *)(icmp + 1) > end || p->first_fragment)
		return edge_drop(xdp, EDGE_ICMP, 0);
	if (icmp->type == (p->v6 ? ICMP6_ECHO : ICMP4_ECHO) && !icmp->code)
		return icmp_echo(ctx, xdp, p);
	if (p->v6 && icmp->type >= ICMP6_NEIGHBOUR_FIRST && icmp->type <= ICMP6_NEIGHBOUR_LAST)
		return FRAME_PASS(xdp);
	if (!wire_icmp_is_error(p->v6, icmp->type) || !icmp_quoted(p, data, end, &q))
		return edge_drop(xdp, EDGE_ICMP, 0);
	service = edge_frontend_service(&q.dst, q.dport_be, q.protocol);
	s = bpf_map_lookup_elem(&edge_services, &service);
	if (!service || !s || ((s->flags & EDGE_ALLOW) && !edge_client_allowed(service, &q.src)))
		return edge_drop(xdp, EDGE_ICMP, 0);
	way->service = service;
	way->hash = edge_hash(&q);
	way->backend = edge_pick(&q, s, service, way->hash);
	if (!way->backend)
		return edge_drop(xdp, EDGE_ICMP, service);
	edge_reason_count(EDGE_ICMP_ERROR);
	return EDGE_DELIVER;
}

/* As edge_reason_count; it brings enum packet_fault into the BTF. */
static __attribute__((noinline)) int edge_fault_count(enum packet_fault why)
{
	__u32 key = why;
	struct edge_count *c = bpf_map_lookup_elem(&edge_faults, &key);

	if (c)
		c->times++;
	return edge_reason_count(EDGE_MALFORMED);
}

static __always_inline int edge_is_virtual(const struct packet *p)
{
	/* Before Linux 6.2 what a global function got is no key for a map. */
	struct address dst = p->dst;

	return !!bpf_map_lookup_elem(&edge_addresses, &dst);
}

/* A packet that no frontend takes. */
static __always_inline int edge_other(void *ctx, const int xdp, const struct packet *p, struct edge_way *way)
{
	const struct edge_backend *b;
	__u32 id;

	if (!edge_is_virtual(p))
		return EDGE_FOREIGN;
	switch (p->kind) {
	case PACKET_FLOW:
		return EDGE_UNSERVED;
	case PACKET_ICMP:
		return edge_icmp(ctx, xdp, p, way);
	case PACKET_FRAGMENT:
		id = fragment_follow(p);
		b = bpf_map_lookup_elem(&edge_backends, &id);
		if (!id || !b)
			return edge_drop(xdp, EDGE_FRAGMENT_LOST, 0);
		way->backend = id;
		way->service = b->service;
		return EDGE_DELIVER;
	case PACKET_OTHER:
		return edge_drop(xdp, EDGE_PROTOCOL, 0);
	default:
		edge_fault_count(p->fault);
		return FRAME_DROP(xdp);
	}
}

__attribute__((noinline)) int edge_other_xdp(struct xdp_md *ctx, const struct packet *p, struct edge_way *way)
{
	return p && way ? edge_other(ctx, 1, p, way) : XDP_DROP;
}

__attribute__((noinline)) int edge_other_tcx(struct __sk_buff *ctx, const struct packet *p, struct edge_way *way)
{
	return p && way ? edge_other(ctx, 0, p, way) : TCX_DROP;
}

/* Does not return, unless there is nowhere to jump to. */
static __always_inline void edge_jump(void *ctx, const int xdp, const __u32 to)
{
	if (xdp)
		bpf_tail_call(ctx, &edge_nat_xdp, to);
	else
		bpf_tail_call(ctx, &edge_nat_tcx, to);
}

static __always_inline void edge_nat_jump(void *ctx, const int xdp, const struct packet *p, __u32 backend, __u32 service)
{
	__u32 zero = 0;
	struct edge_parcel *parcel = bpf_map_lookup_elem(&edge_parcels, &zero);

	if (!parcel)
		return;
	parcel->packet = *p;
	parcel->backend = backend;
	parcel->service = service;
	edge_jump(ctx, xdp, EDGE_NAT_OUT);
}

/* Passes the packet, unless it may be the answer of a backend behind NAT. */
static __always_inline int edge_foreign(void *ctx, const int xdp, const struct packet *p)
{
	__u32 zero = 0;
	const struct edge_config *c = bpf_map_lookup_elem(&edge_config, &zero);
	const struct edge_source *own;

	if (c && c->nat) {
		own = &c->source[c->which & 1];
		if (wire_address_equal(&p->dst, p->v6 ? &own->v6 : &own->v4))
			edge_jump(ctx, xdp, EDGE_NAT_IN);
	}
	return FRAME_PASS(xdp);
}

static __always_inline int edge_deliver(void *ctx, const int xdp, const struct packet *p, const struct edge_way *way)
{
	__u32 service = way->service, id = way->backend;
	const struct edge_service *s = bpf_map_lookup_elem(&edge_services, &service);
	const struct edge_backend *b = edge_backend_get(id, service, BACKEND_DRAINING);

	if (!s || !b)
		return p->kind == PACKET_FLOW ? edge_refuse(ctx, xdp, p, EDGE_NO_BACKEND, service) :
						edge_drop(xdp, EDGE_NO_BACKEND, service);
	if (s->deliver == EDGE_DELIVER_DSR || s->deliver == EDGE_DELIVER_IPIP)
		return tunnel(ctx, xdp, p, b, service, way->hash, s->deliver == EDGE_DELIVER_DSR);
	if (s->deliver == EDGE_DELIVER_NAT)
		edge_nat_jump(ctx, xdp, p, id, service);
	return edge_drop(xdp, EDGE_DAMAGED, service);
}

static __always_inline int edge(void *ctx, const int xdp)
{
	struct packet p = {};
	struct edge_way way = {};
	int verdict;

	if (!frame_pull(ctx, xdp))
		return edge_drop(xdp, EDGE_FRAME, 0);
	packet_read(&p, frame_data(ctx, xdp), frame_end(ctx, xdp), frame_length(ctx, xdp));
	if (p.kind == PACKET_NONE)
		return FRAME_PASS(xdp);
	if (!edge_filter_has(&p.dst))
		return edge_foreign(ctx, xdp, &p);
	if (p.kind == PACKET_FLOW)
		way.service = edge_frontend_service(&p.dst, p.dport_be, p.protocol);
	if (way.service)
		verdict = edge_serve(ctx, xdp, &p, &way);
	else
		verdict = xdp ? edge_other_xdp(ctx, &p, &way) : edge_other_tcx(ctx, &p, &way);
	if (verdict == EDGE_DELIVER)
		return edge_deliver(ctx, xdp, &p, &way);
	if (verdict == EDGE_UNSERVED)
		return edge_refuse(ctx, xdp, &p, EDGE_UNSERVED_PORT, 0);
	return verdict == EDGE_FOREIGN ? edge_foreign(ctx, xdp, &p) : verdict;
}

SEC("xdp")
int weir_edge_xdp(struct xdp_md *ctx)
{
	return edge(ctx, 1);
}

SEC("tcx/ingress")
int weir_edge_tcx(struct __sk_buff *ctx)
{
	return edge(ctx, 0);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
