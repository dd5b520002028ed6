// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//go:build ignore

/*
 * Tells of flows and of dropped packets. The programs are attached while
 * somebody watches, and run where the kernel changes a socket's state or throws a
 * packet away; of TCP's packets none passes here. They only read.
 */
#include "trace_kernel.h"
#include "trace_maps.h"
#include "trace_flow.h"
#include "trace_drop.h"
#include "trace_datagram.h"

/* A socket begins to connect: the process is the one that runs. */
static __always_inline void tcp_connects(struct sock *sk, struct trace_count *c, __u64 now, __u64 cookie)
{
	__u64 key = (__u64)sk;
	struct flow f = {};

	flow_ends(&f, sk);
	flow_process(&f);
	flow_vip(&f, balanced(&peers, &displaced_peers, cookie));
	f.began_ns = now;
	f.netns = sk->__sk_common.skc_net.net->ns.inum;
	f.protocol = IPPROTO_TCP;
	if (bpf_map_update_elem(&flows, &key, &f, BPF_ANY))
		c->unplaced++;
}

/* The other side's connection is open. Softirq has no process of ours. */
static __always_inline void tcp_accepts(struct sock *sk, struct trace_count *c, __u64 now)
{
	__u64 key = (__u64)sk;
	struct flow f = {};

	flow_ends(&f, sk);
	f.began_ns = now;
	f.opened_ns = now;
	f.netns = sk->__sk_common.skc_net.net->ns.inum;
	f.protocol = IPPROTO_TCP;
	f.flags = FLOW_ACCEPTED;
	if (bpf_map_update_elem(&flows, &key, &f, BPF_ANY))
		c->unplaced++;
}

/* The socket's connection has ended, one way or another. */
static __always_inline void tcp_ends(struct sock *sk, struct flow *f, int old, __u64 now)
{
	struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);
	__u64 key = (__u64)sk;

	if (!f->local_port_be)
		f->local_port_be = bpf_htons(sk->__sk_common.skc_num);
	f->ended_ns = now;
	f->state = old;
	f->fault = sk->sk_err;
	if (tp) {
		f->sent = tp->bytes_sent - tp->bytes_retrans;
		/* The end of the other side's stream counts as a byte. */
		f->received = tp->bytes_received - (sk->__sk_common.skc_flags >> SOCK_DONE & 1);
		f->retransmits = tp->total_retrans;
		f->rtt_us = tp->srtt_us >> 3;
	}
	flow_tell(counts(now), key, f);
	bpf_map_delete_elem(&flows, &key);
}

SEC("tp_btf/inet_sock_set_state")
int weir_tcp_state(__u64 *ctx)
{
	struct sock *sk = (struct sock *)ctx[0];
	int old = ctx[1], state = ctx[2];
	__u64 key = (__u64)sk, now, cookie;
	struct trace_count *c;
	struct flow *f;

	if (sk->sk_protocol != IPPROTO_TCP || old == TCP_LISTEN || state == TCP_LISTEN)
		return 0;
	switch (state) {
	case TCP_SYN_SENT:
		cookie = bpf_get_socket_cookie(sk);
		bpf_map_delete_elem(&attempts, &cookie);
		now = bpf_ktime_get_ns();
		c = counts(now);
		if (flow_watched(sk) && flow_admit(c))
			tcp_connects(sk, c, now, cookie);
		return 0;
	case TCP_ESTABLISHED:
		if (old == TCP_SYN_RECV) {
			now = bpf_ktime_get_ns();
			c = counts(now);
			if (flow_watched(sk) && flow_admit(c))
				tcp_accepts(sk, c, now);
			return 0;
		}
		f = bpf_map_lookup_elem(&flows, &key);
		if (f) {
			f->opened_ns = bpf_ktime_get_ns();
			f->local_port_be = bpf_htons(sk->__sk_common.skc_num);
		}
		return 0;
	case TCP_FIN_WAIT1:
	case TCP_LAST_ACK:
		/* Only a process closes its side. */
		f = bpf_map_lookup_elem(&flows, &key);
		if (f && !f->pid)
			flow_process(f);
		return 0;
	case TCP_CLOSE:
		f = bpf_map_lookup_elem(&flows, &key);
		if (!f)
			return 0;
		now = bpf_ktime_get_ns();
		tcp_ends(sk, f, old, now);
		return 0;
	}
	return 0;
}

/* Shows that a flow is in trouble while it is open. */
SEC("tp_btf/tcp_retransmit_skb")
int weir_tcp_retransmit(__u64 *ctx)
{
	struct sock *sk = (struct sock *)ctx[0];
	__u64 key = (__u64)sk;
	struct flow *f = bpf_map_lookup_elem(&flows, &key);

	if (!f)
		return 0;
	f->retransmits++;
	f->local_port_be = bpf_htons(sk->__sk_common.skc_num);
	return 0;
}

/*
 * connect() of TCP. Who gets as far as a first packet is followed from there; what
 * stays behind had no route, no source port left, or a program that forbade it:
 * the balancer, which is asked before, for a virtual IP that has no backend.
 */
static __always_inline int attempt(struct bpf_sock_addr *ctx, int v6)
{
	__u64 cookie, now;
	struct trace_count *c;
	struct flow f = {};
	int result;

	if (ctx->protocol != IPPROTO_TCP)
		return PROCEED;
	result = bpf_get_retval();
	now = bpf_ktime_get_ns();
	c = counts(now);
	if (!c || c->flows >= flow_limit) /* counted where the flow begins */
		return PROCEED;
	cookie = bpf_get_socket_cookie(ctx);
	if (v6) {
		f.remote.word_be[0] = ctx->user_ip6[0];
		f.remote.word_be[1] = ctx->user_ip6[1];
		f.remote.word_be[2] = ctx->user_ip6[2];
		f.remote.word_be[3] = ctx->user_ip6[3];
	} else {
		address_map4(&f.remote, ctx->user_ip4);
	}
	f.remote_port_be = ctx->user_port;
	f.began_ns = now;
	f.protocol = IPPROTO_TCP;
	flow_process(&f);
	if (result >= 0) {
		flow_vip(&f, balanced(&peers, &displaced_peers, cookie));
		bpf_map_update_elem(&attempts, &cookie, &f, BPF_ANY);
		return PROCEED;
	}
	if (flow_admit(c)) {
		f.ended_ns = now;
		f.fault = -result;
		flow_tell(c, cookie, &f);
	}
	return PROCEED;
}

SEC("cgroup/connect4")
int weir_attempt4(struct bpf_sock_addr *ctx)
{
	return attempt(ctx, 0);
}

SEC("cgroup/connect6")
int weir_attempt6(struct bpf_sock_addr *ctx)
{
	return attempt(ctx, 1);
}

/* UDP has no states: its packets are counted, at the socket. */
static __always_inline void datagram(struct __sk_buff *skb, int sent)
{
	struct datagram_flow_key key = {};
	struct flow fresh = {}, *f;
	struct packet p = {};
	struct trace_count *c;
	__u64 now;

	if (datagram_read(skb, &p))
		return;
	now = bpf_ktime_get_ns();
	key.socket = bpf_get_socket_cookie(skb);
	key.remote = sent ? p.destination : p.source;
	key.port_be = sent ? p.destination_port_be : p.source_port_be;
	f = bpf_map_lookup_elem(&datagram_flows, &key);
	if (!f) {
		c = counts(now);
		if (!flow_admit(c))
			return;
		fresh.local = sent ? p.source : p.destination;
		fresh.local_port_be = sent ? p.source_port_be : p.destination_port_be;
		fresh.remote = key.remote;
		fresh.remote_port_be = key.port_be;
		fresh.began_ns = now;
		fresh.protocol = IPPROTO_UDP;
		fresh.flags = sent ? 0 : FLOW_ACCEPTED;
		if (sent)
			datagram_vip(&fresh, &key);
		bpf_map_update_elem(&datagram_flows, &key, &fresh, BPF_NOEXIST);
		f = bpf_map_lookup_elem(&datagram_flows, &key);
		if (!f)
			return;
	}
	f->last_ns = now;
	if (sent) {
		__sync_fetch_and_add(&f->sent, p.payload);
		/* Whoever sends runs; who receives may be anybody. */
		if (!f->pid)
			f->pid = bpf_get_current_pid_tgid() >> 32;
	} else {
		__sync_fetch_and_add(&f->received, p.payload);
	}
	if (!f->opened_ns && f->sent && f->received)
		f->opened_ns = now;
}

SEC("cgroup_skb/egress")
int weir_datagram_sent(struct __sk_buff *skb)
{
	if (is_udp(skb))
		datagram(skb, 1);
	return PROCEED;
}

SEC("cgroup_skb/ingress")
int weir_datagram_received(struct __sk_buff *skb)
{
	if (is_udp(skb))
		datagram(skb, 0);
	return PROCEED;
}

SEC("tp_btf/kfree_skb")
int weir_drop(__u64 *ctx)
{
	drop((struct sk_buff *)ctx[0], ctx[2]);
	return 0;
}

/* Some helpers are for programs under the GPL only; the sources are under
 * either licence. */
char LICENSE[] SEC("license") = "Dual BSD/GPL";
