/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Hooks of the tracepoint backend, for kernels that refuse kprobes.
 * The cgroup hooks see the peer of an unconnected socket but no length; the length tracepoints see the length but no peer.
 * They run in the same call of the same task, so the first leaves the peer for the second.
 */
static __always_inline void remember_peer(const u8 *remote, u32 port)
{
	struct peer peer;
	struct peer *known;
	u64 task = bpf_get_current_pid_tgid();
	known = udp_peers_get(&task);
	if (known) {
		__builtin_memcpy(known->remote, remote, 16);
		known->port = swap16((u16)port);
		known->waiting = 1;
		return;
	}
	__builtin_memset(&peer, 0, sizeof(peer));
	__builtin_memcpy(peer.remote, remote, 16);
	peer.port = swap16((u16)port);
	peer.waiting = 1;
	udp_peers_put(&task, &peer);
}

static __always_inline int remember_v4(struct bpf_sock_addr *ctx)
{
	u8 remote[16] __attribute__((aligned(8)));
	map_v4(remote, ctx->user_ip4);
	remember_peer(remote, ctx->user_port);
	return 1; /* 0 would block the datagram */
}

static __always_inline int remember_v6(struct bpf_sock_addr *ctx)
{
	u32 remote[4] __attribute__((aligned(8)));
	remote[0] = ctx->user_ip6[0];
	remote[1] = ctx->user_ip6[1];
	remote[2] = ctx->user_ip6[2];
	remote[3] = ctx->user_ip6[3];
	remember_peer((u8 *)remote, ctx->user_port);
	return 1;
}

#ifdef WITHOUT_LENGTHS /* before 6.3: seen, not counted as flows */
static __always_inline int uncounted(struct bpf_sock_addr *ctx)
{
	if (ctx->protocol == PROTOCOL_UDP)
		count(COUNTER_UNCOUNTED_UDP, 1);
	return 1;
}

CGROUP_HOOK(connect4) { return uncounted(ctx); }
CGROUP_HOOK(connect6) { return uncounted(ctx); }
CGROUP_HOOK(sendmsg4) { return uncounted(ctx); }
CGROUP_HOOK(sendmsg6) { return uncounted(ctx); }
CGROUP_HOOK(recvmsg4) { return uncounted(ctx); }
CGROUP_HOOK(recvmsg6) { return uncounted(ctx); }
#else
CGROUP_HOOK(sendmsg4) { return remember_v4(ctx); }
CGROUP_HOOK(sendmsg6) { return remember_v6(ctx); }
CGROUP_HOOK(recvmsg4) { return remember_v4(ctx); }
CGROUP_HOOK(recvmsg6) { return remember_v6(ctx); }

static __always_inline int on_length(void *sk, int bytes, int peeks, int sends)
{
	struct peer *peer;
	struct tuple t;
	u16 protocol = 0;
	u64 task;
	READ_PROTOCOL(protocol, sk);
	if (protocol != PROTOCOL_UDP)
		return 0;
	task = bpf_get_current_pid_tgid();
	peer = udp_peers_get(&task);
	read_tuple(sk, &t);
	if (peer && peer->waiting) {
		__builtin_memcpy(t.remote, peer->remote, 16);
		t.remote_port = peer->port;
		peer->waiting = 0;
	}
	if (bytes < 0 || peeks)
		return 0;
	if (!t.remote_port) { /* recv() without an address on a socket that is not connected */
		count(COUNTER_UNCOUNTED_UDP, 1);
		return 0;
	}
	return on_datagram(sk, &t, sends, bytes);
}

RAW_TRACEPOINT(sock_send_length)
{
	return on_length((void *)ctx->args[0], ctx->args[1], 0, 1);
}

RAW_TRACEPOINT(sock_recv_length)
{
	return on_length((void *)ctx->args[0], ctx->args[1], ctx->args[2] & MESSAGE_PEEK, 0);
}
#endif /* WITHOUT_LENGTHS */
