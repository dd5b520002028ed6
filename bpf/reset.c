// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//go:build ignore

/*
 * Ends the sockets whose backend is down or gone, so that clients connect anew
 * instead of hanging. Each program runs once for every socket of the network
 * namespace of the process that reads the iterator (bpf_sock_destroy: Linux 6.5).
 */
#include "kernel.h"
#include "layout.h"
#include "maps.h"
#include "address.h"
#include "client.h"
#include "verdict.h"
#include "pick.h"
#include "remember.h"

struct sock_common {
} __attribute__((preserve_access_index));

struct udp_sock {
} __attribute__((preserve_access_index));

struct bpf_iter__tcp {
	struct bpf_iter_meta *meta;
	struct sock_common *sk_common;
} __attribute__((preserve_access_index));

struct bpf_iter__udp {
	struct bpf_iter_meta *meta;
	struct udp_sock *udp_sk;
} __attribute__((preserve_access_index));

extern int bpf_sock_destroy(struct sock_common *sk) __ksym;

/*
 * Ends the socket if it was connected to a backend that serves nobody any more.
 * The iterators lock the socket, so its peer is ours for that time.
 */
static __always_inline void reset_lost(struct sock_common *sk)
{
	struct peer *m = peer_get(PEERS, bpf_get_socket_cookie(sk));
	struct backend *b;

	if (!m || !m->backend_id)
		return;
	/* No backend: the id is another's by now. */
	b = peer_backend(m);
	if (b && b->state >= BACKEND_DRAINING)
		return;
	if (bpf_sock_destroy(sk))
		return;
	if (b)
		__sync_fetch_and_add(&b->reset, 1);
	peer_uncount(m);
}

SEC("iter/tcp")
int weir_reset_tcp(struct bpf_iter__tcp *ctx)
{
	struct sock_common *sk = ctx->sk_common;

	if (sk)
		reset_lost(sk);
	return 0;
}

SEC("iter/udp")
int weir_reset_udp(struct bpf_iter__udp *ctx)
{
	struct udp_sock *sk = ctx->udp_sk;

	if (sk)
		reset_lost((struct sock_common *)sk);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
