/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* UDP: who asked, and how sure that is. */

/*
 * Direction, in this order:
 *   1. A socket that never bound a port is a client: what it sends is EGRESS, what it receives is an answer.
 *   2. One that did: received first is a server (INGRESS), sent first is a client. Known by ports, not by socket, so that
 *      a server that answers from a socket per client stays one.
 *   3. Never seen, and an own low port answers an ephemeral one: a server whose request came before the agent (LOW).
 * Both ports ephemeral and no bound port is what a TFTP reply looks like: LOW, never a port rule.
 */
static __always_inline u8 confidence_of_client(const struct tuple *t)
{
	return t->local_port >= EPHEMERAL_LOW && t->remote_port >= EPHEMERAL_LOW ? CONFIDENCE_LOW : CONFIDENCE_HIGH;
}

static __always_inline void learn_udp_direction(void *sk, const struct tuple *t, int sends, struct flow_key *flow)
{
	struct udp_key key;
	u64 *known, learned;
	u8 locks = 0;

	READ_USERLOCKS(locks, sk);
	flow->direction = DIRECTION_EGRESS;
	flow->confidence = confidence_of_client(t);
	if (!(locks & BIND_PORT_LOCK))
		return;
	__builtin_memset(&key, 0, sizeof(key));
	key.netns_cookie = flow->netns_cookie;
	key.local_port = t->local_port;
	key.remote_port = t->remote_port;
	__builtin_memcpy(key.remote, t->remote, 16);
	known = udp_directions_get(&key);
	if (known) {
		flow->direction = *known & 0xff;
		flow->confidence = (*known >> 8) & 0xff;
		return;
	}
	if (!sends) {
		flow->direction = DIRECTION_INGRESS;
		flow->confidence = CONFIDENCE_HIGH;
	} else if (t->local_port < EPHEMERAL_LOW && t->remote_port >= EPHEMERAL_LOW) {
		flow->direction = DIRECTION_INGRESS;
		flow->confidence = CONFIDENCE_LOW;
	}
	learned = flow->direction | ((u64)flow->confidence << 8);
	udp_directions_put(&key, &learned);
}

/* Process context. t->remote and t->remote_port are the datagram's peer. */
static __always_inline int on_datagram(void *sk, const struct tuple *t, int sends, u64 bytes)
{
	struct flow_key key;
	struct event event = {};
	if (!t->remote_port || !t->local_port)
		return 0; /* an error queue, or a socket that was closed meanwhile */
	begin_key(&key, t, current_cgroup(), PROTOCOL_UDP);
	learn_udp_direction(sk, t, sends, &key);
	key.port = key.direction == DIRECTION_EGRESS ? t->remote_port : t->local_port;
	event.now_ns = bpf_ktime_get_boot_ns();
	event.count = sends == (key.direction == DIRECTION_EGRESS); /* datagrams of the initiating side */
	if (sends)
		event.tx_bytes = bytes;
	else
		event.rx_bytes = bytes;
	account(sk, &key, &event, t, 0, 0);
	return 0;
}
