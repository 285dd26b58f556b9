/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Hooks of the kprobe backend. */


KPROBE(tcp_connect)
{
	return on_tcp_connect((void *)ARGUMENT1(ctx));
}

KRETPROBE(inet_csk_accept)
{
	return on_tcp_accept((void *)RETURNED(ctx));
}

static __always_inline int on_udp_sendmsg(void *sk, void *message, u64 bytes, int v6)
{
	struct tuple t;
	void *name = 0;
	u16 family = 0, port = 0;
	u32 v4 = 0;
	read_tuple(sk, &t);
	READ(name, MESSAGE_NAME, message);
	if (name) { /* the kernel's own copy of struct sockaddr_in or sockaddr_in6 */
		bpf_probe_read_kernel(&family, 2, name);
		bpf_probe_read_kernel(&port, 2, name + 2);
		t.remote_port = swap16(port);
		if (family == FAMILY_INET6) {
			bpf_probe_read_kernel(t.remote, 16, name + 8);
		} else {
			bpf_probe_read_kernel(&v4, 4, name + 4);
			map_v4(t.remote, v4);
		}
	}
	if (v6 && is_v4_mapped(t.remote))
		return 0; /* udpv6_sendmsg() hands v4-mapped peers to udp_sendmsg(): counted there */
	return on_datagram(sk, &t, 1, bytes);
}

KPROBE(udp_sendmsg)
{
	return on_udp_sendmsg((void *)ARGUMENT1(ctx), (void *)ARGUMENT2(ctx), ARGUMENT3(ctx), 0);
}

KPROBE(udpv6_sendmsg)
{
	return on_udp_sendmsg((void *)ARGUMENT1(ctx), (void *)ARGUMENT2(ctx), ARGUMENT3(ctx), 1);
}

/* skb_consume_udp(sk, skb, len): the receiver's context, the headers still there; len < 0 is MSG_PEEK. */
KPROBE(skb_consume_udp)
{
	void *sk = (void *)ARGUMENT1(ctx), *skb = (void *)ARGUMENT2(ctx);
	int bytes = (int)ARGUMENT3(ctx);
	struct tuple t;
	unsigned char *head = 0;
	u16 network = 0, transport = 0, source = 0, protocol = 0;
	u32 v4 = 0;
	if (bytes < 0)
		return 0;
	read_tuple(sk, &t);
	READ(head, SKB_HEAD, skb);
	READ(network, SKB_NETWORK, skb);
	READ(transport, SKB_TRANSPORT, skb);
	READ(protocol, SKB_PROTOCOL, skb);
	bpf_probe_read_kernel(&source, 2, head + transport);
	t.remote_port = swap16(source);
	if (protocol == swap16(0x0800)) {
		bpf_probe_read_kernel(&v4, 4, head + network + 12);
		map_v4(t.remote, v4);
		bpf_probe_read_kernel(&v4, 4, head + network + 16);
		map_v4(t.local, v4);
	} else {
		bpf_probe_read_kernel(t.remote, 16, head + network + 8);
		bpf_probe_read_kernel(t.local, 16, head + network + 24);
	}
	return on_datagram(sk, &t, 0, bytes);
}
