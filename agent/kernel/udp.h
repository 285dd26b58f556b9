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

#define NS_PER_MS 1000000

/* In one word for each pair of ports: direction, confidence, and when its client last sent, in milliseconds. */
static __always_inline u64 udp_word(const struct flow_key *flow, u64 now_ns)
{
	return flow->direction | ((u64)flow->confidence << 8) | (now_ns / NS_PER_MS) << 16;
}

/* Returns how long ago what a server answers was sent, 0 for everything else. */
static __always_inline u64 learn_udp_direction(
	void *sk, const struct tuple *t, int sends, u64 now_ns, struct flow_key *flow)
{
	struct udp_key key;
	u64 *known, learned, asked_ns;
	u8 locks = 0;

	READ_USERLOCKS(locks, sk);
	flow->direction = DIRECTION_EGRESS;
	flow->confidence = confidence_of_client(t);
	if (!(locks & BIND_PORT_LOCK))
		return 0;
	__builtin_memset(&key, 0, sizeof(key));
	key.netns_cookie = flow->netns_cookie;
	key.local_port = t->local_port;
	key.remote_port = t->remote_port;
	__builtin_memcpy(key.remote, t->remote, 16);
	known = udp_directions_get(&key);
	if (known) {
		learned = *known;
		flow->direction = learned & 0xff;
		flow->confidence = (learned >> 8) & 0xff;
		if (flow->direction != DIRECTION_INGRESS)
			return 0;
		if (!sends) {
			*known = udp_word(flow, now_ns);
			return 0;
		}
		asked_ns = (learned >> 16) * NS_PER_MS;
		return asked_ns < now_ns ? now_ns - asked_ns : 0;
	}
	if (!sends) {
		flow->direction = DIRECTION_INGRESS;
		flow->confidence = CONFIDENCE_HIGH;
	} else if (t->local_port < EPHEMERAL_LOW && t->remote_port >= EPHEMERAL_LOW) {
		flow->direction = DIRECTION_INGRESS;
		flow->confidence = CONFIDENCE_LOW;
	}
	learned = udp_word(flow, now_ns);
	udp_directions_put(&key, &learned);
	return 0;
}

/* Process context. t->remote and t->remote_port are the datagram's peer. */
static __always_inline int on_datagram(void *sk, const struct tuple *t, int sends, u64 bytes)
{
	struct flow_key key;
	struct event event = {};
	if (!t->remote_port || !t->local_port)
		return 0; /* an error queue, or a socket that was closed meanwhile */
	begin_key(&key, t, current_cgroup(), PROTOCOL_UDP);
	event.now_ns = bpf_ktime_get_boot_ns();
	event.age_ns = learn_udp_direction(sk, t, sends, event.now_ns, &key);
	key.port = key.direction == DIRECTION_EGRESS ? t->remote_port : t->local_port;
	event.count = sends == (key.direction == DIRECTION_EGRESS); /* datagrams of the initiating side */
	if (sends)
		event.tx_bytes = bytes;
	else
		event.rx_bytes = bytes;
	account(sk, &key, &event, t, 0, 0);
	return 0;
}
