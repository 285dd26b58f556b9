/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* TCP: direction by state transition, outcome by error, payload bytes at the close. */

/* Process context: destination and port are final; the source address may not be set yet. */
static __always_inline int on_tcp_connect(void *sk)
{
	struct connection made;
	struct actor actor;
	u64 key = (u64)sk;
	u16 port = 0;
	current_actor(&actor);
	READ(port, SOCK_REMOTE_PORT, sk);
	__builtin_memset(&made, 0, sizeof(made));
	made.since_ns = bpf_ktime_get_boot_ns();
	made.cgroup_id = actor.cgroup_id;
	made.pid = actor.pid;
	made.port = swap16(port);
	made.direction = DIRECTION_EGRESS;
	__builtin_memcpy(made.process, actor.process, PROCESS_BYTES);
	connections_put(&key, &made);
	return 0;
}

static __always_inline void on_tcp_listen(void *sk)
{
	struct listener_key key;
	struct listener owner;
	struct actor actor;
	struct tuple t;
	read_tuple(sk, &t);
	current_actor(&actor);
	__builtin_memset(&key, 0, sizeof(key));
	__builtin_memset(&owner, 0, sizeof(owner));
	key.netns_inode = t.netns_inode;
	key.port = t.local_port;
	__builtin_memcpy(key.local, t.local, 16);
	owner.cgroup_id = actor.cgroup_id;
	owner.pid = actor.pid;
	__builtin_memcpy(owner.process, actor.process, PROCESS_BYTES);
	listeners_put(&key, &owner);
}

static __always_inline void on_tcp_unlisten(void *sk)
{
	struct listener_key key;
	struct tuple t;
	read_tuple(sk, &t);
	__builtin_memset(&key, 0, sizeof(key));
	key.netns_inode = t.netns_inode;
	key.port = t.local_port;
	__builtin_memcpy(key.local, t.local, 16);
	listeners_del(&key);
}

/* Softirq: `current` is whoever was interrupted, so the owner is who listens there, else who made the listening socket. */
static __always_inline void owner_of_listener(void *sk, const struct tuple *t, struct actor *actor)
{
	struct listener_key key;
	struct listener *owner;
	__builtin_memset(actor, 0, sizeof(*actor));
	__builtin_memset(&key, 0, sizeof(key));
	key.netns_inode = t->netns_inode;
	key.port = t->local_port;
	__builtin_memcpy(key.local, t->local, 16);
	owner = listeners_get(&key);
	if (!owner) {
		__builtin_memset(key.local, 0, 16); /* [::] */
		owner = listeners_get(&key);
	}
	if (!owner) {
		map_v4(key.local, 0); /* 0.0.0.0 */
		owner = listeners_get(&key);
	}
	if (owner) {
		actor->cgroup_id = owner->cgroup_id;
		actor->pid = owner->pid;
		__builtin_memcpy(actor->process, owner->process, PROCESS_BYTES);
	}
	if (!actor->cgroup_id)
		actor->cgroup_id = cgroup_of_socket(sk);
}

static __always_inline void on_tcp_established(void *sk, int from)
{
	struct connection fresh, *known;
	struct actor actor;
	struct tuple t;
	u64 key = (u64)sk;
	struct event event = {.count = 1, .protocol = PROTOCOL_TCP, .confidence = CONFIDENCE_HIGH};

	read_tuple(sk, &t);
	known = connections_get(&key);
	if (from == TCP_SYN_RECV && !(known && known->direction == DIRECTION_EGRESS)) {
		owner_of_listener(sk, &t, &actor);
		event.direction = DIRECTION_INGRESS;
		event.port = t.local_port;
	} else {
		__builtin_memset(&actor, 0, sizeof(actor));
		if (known) {
			actor.cgroup_id = known->cgroup_id;
			actor.pid = known->pid;
			__builtin_memcpy(actor.process, known->process, PROCESS_BYTES);
		} else {
			actor.cgroup_id = cgroup_of_socket(sk); /* SYN sent before the agent came */
		}
		event.direction = DIRECTION_EGRESS;
		event.port = t.remote_port;
	}
	if (known && event.direction == DIRECTION_EGRESS) {
		known->since_ns = bpf_ktime_get_boot_ns();
		known->established = 1;
	} else {
		__builtin_memset(&fresh, 0, sizeof(fresh));
		fresh.since_ns = bpf_ktime_get_boot_ns();
		fresh.cgroup_id = actor.cgroup_id;
		fresh.pid = actor.pid;
		fresh.port = event.port;
		fresh.direction = event.direction;
		fresh.established = 1;
		__builtin_memcpy(fresh.process, actor.process, PROCESS_BYTES);
		connections_put(&key, &fresh);
	}
	account(&t, &actor, &event);
}

static __always_inline void on_tcp_close(void *sk, int from)
{
	struct connection *known, last;
	struct actor actor;
	struct tuple t;
	u64 key = (u64)sk, retransmitted = 0, flags = 0;
	int error = 0;
	struct event event = {.protocol = PROTOCOL_TCP, .confidence = CONFIDENCE_HIGH};

	known = connections_get(&key);
	if (!known) {
		if (from == TCP_LISTEN)
			on_tcp_unlisten(sk);
		else if (from != TCP_SYN_RECV)
			count(COUNTER_UNKNOWN_CLOSE, 1);
		return;
	}
	last = *known;
	connections_del(&key);
	read_tuple(sk, &t);
	__builtin_memset(&actor, 0, sizeof(actor));
	actor.cgroup_id = last.cgroup_id;
	actor.pid = last.pid;
	__builtin_memcpy(actor.process, last.process, PROCESS_BYTES);
	event.direction = last.direction;
	event.port = last.port;
	event.duration_ns = bpf_ktime_get_boot_ns() - last.since_ns;
	if (last.established) {
		/* Payload alone: bytes_acked counts SYN and FIN, bytes_sent counts data octets (RFC 4898). */
		READ(event.tx_bytes, TCP_BYTES_SENT, sk);
		READ(retransmitted, TCP_BYTES_RETRANS, sk);
		READ(event.rx_bytes, TCP_BYTES_RECEIVED, sk);
		READ(flags, SOCK_FLAGS, sk);
		event.tx_bytes -= retransmitted;
		if ((flags & FIN_RECEIVED) && event.rx_bytes)
			event.rx_bytes -= 1; /* rcv_nxt moves over the FIN, too */
	} else {
		READ(error, SOCK_ERROR, sk);
		if (!error)
			READ(error, SOCK_SOFT_ERROR, sk);
		if (!error)
			error = last.soft_error;
		event.error = error ? error : ERROR_ABORTED;
		event.count = 1;
	}
	account(&t, &actor, &event);
}

static __always_inline int on_tcp_state(void *sk, int from, int to)
{
	u16 protocol = 0;
	if (to != TCP_ESTABLISHED && to != TCP_CLOSE && to != TCP_LISTEN && to != TCP_SYN_SENT)
		return 0;
	READ_PROTOCOL(protocol, sk);
	if (protocol != PROTOCOL_TCP)
		return 0;
#ifdef CONNECT_BY_STATE
	if (to == TCP_SYN_SENT)
		on_tcp_connect(sk);
#endif
	if (to == TCP_ESTABLISHED && (from == TCP_SYN_SENT || from == TCP_SYN_RECV))
		on_tcp_established(sk, from);
	else if (to == TCP_LISTEN)
		on_tcp_listen(sk);
	else if (to == TCP_CLOSE)
		on_tcp_close(sk, from);
	return 0;
}

/* An ICMP error that arrives while the caller owns the socket reaches sk_err_soft only, and only after this report. */
static __always_inline int on_error_report(void *sk)
{
	struct connection *known;
	u64 key = (u64)sk;
	int error = 0;
	known = connections_get(&key);
	if (!known || known->established)
		return 0;
	READ(error, SOCK_ERROR, sk);
	if (!error)
		READ(error, SOCK_SOFT_ERROR, sk);
	known->soft_error = error ? error : HOST_UNREACHABLE;
	return 0;
}

/* The process that accepts may be another than the one that listens (a worker); the row keeps its first name. */
static __always_inline int on_tcp_accept(void *sk)
{
	struct connection *known;
	struct actor actor;
	u64 key = (u64)sk;
	if (!sk)
		return 0;
	known = connections_get(&key);
	if (!known || known->direction != DIRECTION_INGRESS || known->process[0])
		return 0;
	current_actor(&actor);
	known->pid = actor.pid;
	__builtin_memcpy(known->process, actor.process, PROCESS_BYTES);
	return 0;
}
