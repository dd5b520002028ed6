// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//go:build ignore

/*
 * Balances at the system call: connect() and sendmsg() to a virtual address
 * get a backend's own, recvmsg() and getpeername() show the virtual one again.
 * Packets never pass here. The socket is locked by the kernel while a program
 * runs at a system call, so what it remembers needs no lock of ours.
 */
#include "kernel.h"
#include "layout.h"
#include "maps.h"
#include "address.h"
#include "client.h"
#include "verdict.h"
#include "pick.h"
#include "remember.h"

/* Reads where the socket wants to go. Tells whether that may concern us. */
static __always_inline int destination_read(struct bpf_sock_addr *ctx, int v6, struct frontend_key *to)
{
	__u32 protocol = ctx->protocol;

	/* A socket of MPTCP connects before it knows whether the other side has
	 * it; its subflows are sockets of the kernel, without this hook. */
	if (protocol == IPPROTO_MPTCP)
		protocol = IPPROTO_TCP;
	if (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP)
		return 0;
	address_read(ctx, v6, &to->addr);
	to->port_be = port_read(ctx);
	to->protocol = protocol;
	return address_is_virtual(&to->addr);
}

/* Chance for a connection. A cookie is as good as a random number, and cheaper;
 * but a socket that connects again, as after a failure, must get another. */
static __always_inline __u32 connect_draw(__u64 cookie)
{
	const struct peer *m = place_get(PEERS, cookie);

	if (m && m->cookie == cookie)
		return bpf_get_prandom_u32();
	return mix(cookie) >> 32;
}

static __always_inline int do_connect(struct bpf_sock_addr *ctx, int v6)
{
	struct frontend_key to = {};
	struct pick p = {};
	__u64 cookie = bpf_get_socket_cookie(ctx);
	struct peer *m;
	enum reason why;

	if (!destination_read(ctx, v6, &to)) {
		/* A UDP socket may connect again and again, a TCP socket after
		 * a failure. */
		peer_forget(PEERS, cookie);
		return verdict(REASON_NOT_OURS, 0);
	}
	p.service = frontend_service(&to);
	if (!p.service)
		return verdict(REASON_UNSERVED_PORT, 0);
	why = service_pick(ctx, v6, connect_draw(cookie), &p);
	if (why == REASON_BALANCED && !pick_admit(&p))
		why = REASON_LIMITED;
	if (why == REASON_BALANCED) {
		m = peer_take(PEERS, cookie);
		if (m)
			peer_fill(m, &to, &p);
		else
			peer_missing(&p);
		address_write(ctx, v6, &p.backend->addr, p.backend->port_be);
	}
	return verdict(why, p.service);
}

/*
 * Each message is balanced anew, but a socket stays with its backend as long as
 * that serves old connections: most UDP protocols have some notion of one.
 */
static __always_inline int do_sendmsg(struct bpf_sock_addr *ctx, int v6)
{
	struct frontend_key to = {};
	struct pick p = {};
	__u64 cookie;
	struct peer *m;
	enum reason why;

	if (!destination_read(ctx, v6, &to))
		return verdict(REASON_NOT_OURS, 0);
	p.service = frontend_service(&to);
	if (!p.service)
		return verdict(REASON_UNSERVED_PORT, 0);
	cookie = bpf_get_socket_cookie(ctx);
	m = peer_get(CORRESPONDENTS, cookie);
	if (m && peer_is_vip(m, &to)) {
		p.backend = peer_backend(m);
		if (p.backend && p.backend->service == p.service && p.backend->state >= BACKEND_DRAINING) {
			address_write(ctx, v6, &p.backend->addr, p.backend->port_be);
			return verdict(REASON_BALANCED, p.service);
		}
	}
	why = service_pick(ctx, v6, mix(cookie) >> 32, &p);
	if (why == REASON_BALANCED && !pick_admit(&p))
		why = REASON_LIMITED;
	if (why == REASON_BALANCED) {
		correspondent_remember(m, cookie, &to, &p);
		address_write(ctx, v6, &p.backend->addr, p.backend->port_be);
	}
	return verdict(why, p.service);
}

/* The kernel allows these two no other answer than PROCEED. */
static __always_inline int do_getpeername(struct bpf_sock_addr *ctx, int v6)
{
	struct peer *m = peer_get(PEERS, bpf_get_socket_cookie(ctx));
	struct address from;

	if (m) {
		address_read(ctx, v6, &from);
		if (peer_is_backend(m, &from, port_read(ctx)))
			address_write(ctx, v6, &m->vip, m->vip_port_be);
	}
	return PROCEED;
}

/* An answer of somebody whom the socket did not reach through us is left as it
 * is, whatever its source. */
static __always_inline int do_recvmsg(struct bpf_sock_addr *ctx, int v6)
{
	struct datagram_key key = {};
	struct datagram *d;
	struct address from;
	__be16 port_be = port_read(ctx);
	struct peer *m;

	address_read(ctx, v6, &from);
	key.cookie = bpf_get_socket_cookie(ctx);
	m = peer_get(PEERS, key.cookie);
	if (peer_is_backend(m, &from, port_be)) {
		address_write(ctx, v6, &m->vip, m->vip_port_be);
		return PROCEED;
	}
	m = peer_get(CORRESPONDENTS, key.cookie);
	if (!m)
		return PROCEED;
	if (peer_is_backend(m, &from, port_be)) {
		address_write(ctx, v6, &m->vip, m->vip_port_be);
		return PROCEED;
	}
	key.backend = from;
	key.backend_port_be = port_be;
	d = bpf_map_lookup_elem(&datagrams, &key);
	if (d && d->cookie == key.cookie)
		address_write(ctx, v6, &d->vip, d->vip_port_be);
	return PROCEED;
}

SEC("cgroup/connect4")
int weir_connect4(struct bpf_sock_addr *ctx)
{
	return do_connect(ctx, 0);
}

SEC("cgroup/connect6")
int weir_connect6(struct bpf_sock_addr *ctx)
{
	return do_connect(ctx, 1);
}

SEC("cgroup/sendmsg4")
int weir_sendmsg4(struct bpf_sock_addr *ctx)
{
	return do_sendmsg(ctx, 0);
}

SEC("cgroup/sendmsg6")
int weir_sendmsg6(struct bpf_sock_addr *ctx)
{
	return do_sendmsg(ctx, 1);
}

SEC("cgroup/recvmsg4")
int weir_recvmsg4(struct bpf_sock_addr *ctx)
{
	return do_recvmsg(ctx, 0);
}

SEC("cgroup/recvmsg6")
int weir_recvmsg6(struct bpf_sock_addr *ctx)
{
	return do_recvmsg(ctx, 1);
}

SEC("cgroup/getpeername4")
int weir_getpeername4(struct bpf_sock_addr *ctx)
{
	return do_getpeername(ctx, 0);
}

SEC("cgroup/getpeername6")
int weir_getpeername6(struct bpf_sock_addr *ctx)
{
	return do_getpeername(ctx, 1);
}

/* Runs when a socket is closed, of every protocol. A client that gives up
 * before its connection has opened is a failure too. */
SEC("cgroup/sock_release")
int weir_sock_release(struct bpf_sock *ctx)
{
	__u32 protocol = ctx->protocol;
	__u64 cookie;

	if (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP && protocol != IPPROTO_MPTCP)
		return PROCEED;
	cookie = bpf_get_socket_cookie(ctx);
	if (ctx->state == TCP_SYN_SENT)
		failure_count(cookie);
	peer_forget(PEERS, cookie);
	/* A look at a place is a cache miss, so none is made in vain. */
	if (protocol == IPPROTO_UDP)
		peer_forget(CORRESPONDENTS, cookie);
	return PROCEED;
}

/*
 * Follows the connections of watched services until they are open. It is
 * attached only where there is such a service: unlike the others it runs for
 * every connection several times.
 */
SEC("sockops")
int weir_watch(struct bpf_sock_ops *ctx)
{
	struct backend *b;
	struct peer *m;

	switch (ctx->op) {
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
		m = peer_get(PEERS, bpf_get_socket_cookie(ctx));
		b = m ? peer_backend(m) : 0;
		if (b && backend_is_watched(b))
			bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
		break;
	case BPF_SOCK_OPS_STATE_CB:
		if (ctx->args[0] != TCP_SYN_SENT)
			break;
		if (ctx->args[1] == TCP_CLOSE)
			failure_count(bpf_get_socket_cookie(ctx));
		bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags & ~BPF_SOCK_OPS_STATE_CB_FLAG);
		break;
	}
	return PROCEED;
}

/* Some helpers are for programs under the GPL only; the sources are under
 * either licence. */
char LICENSE[] SEC("license") = "Dual BSD/GPL";
