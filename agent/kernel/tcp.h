/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * TCP: direction by state transition, outcome by error, payload bytes at the close.
 * Each transition comes twice (see the hooks); the second time, `again`, it finds in `connections` what the first did.
 */

#define SPARE_CONNECTIONS 128 /* a CPU */

/*
 * Takes the place of what the address held before. The allocator hands out again the socket that was freed last, so
 * mostly an entry is there, and writing into it costs a tenth of a delete and an insert. Non-zero: no room.
 */
static __always_inline int keep_connection(u64 *id, struct connection *known, struct connection *made)
{
	struct scratch *here;
	if (!known)
		return connections_put(id, made);
	here = scratch_here();
	if (here && known->state == CONNECTION_OVER)
		__sync_fetch_and_add(&here->spare, -1);
	*known = *made;
	return 0;
}

static __always_inline void drop_connection(u64 *id, struct connection *known)
{
	struct scratch *here = scratch_here();
	known->state = CONNECTION_OVER;
	if (here && (s64)here->spare < SPARE_CONNECTIONS)
		__sync_fetch_and_add(&here->spare, 1);
	else
		connections_del(id);
}

/* Process context: destination and port are final; the source address may not be set yet. */
static __always_inline int on_tcp_connect(void *sk)
{
	struct connection made;
	struct actor actor;
	struct tuple t;
	u64 id = (u64)sk;
	read_tuple(sk, &t);
	current_actor(&actor);
	made.since_ns = bpf_ktime_get_boot_ns();
	begin_key(&made.key, &t, actor.cgroup_id, PROTOCOL_TCP);
	made.key.port = t.remote_port;
	made.key.direction = DIRECTION_EGRESS;
	made.pid = actor.pid;
	made.soft_error = 0;
	made.state = CONNECTION_ASKED;
	made.zero = 0;
	__builtin_memcpy(made.process, actor.process, PROCESS_BYTES);
	keep_connection(&id, connections_get(&id), &made);
	return 0;
}

static __always_inline void begin_listener_key(struct listener_key *key, const struct tuple *t)
{
	void *net = t->net;
	__builtin_memset(key, 0, sizeof(*key));
	READ(key->netns_inode, NET_INODE, net);
	key->port = t->local_port;
	__builtin_memcpy(key->local, t->local, 16);
}

static __always_inline void on_tcp_listen(void *sk)
{
	struct listener_key key;
	struct listener owner;
	struct actor actor;
	struct tuple t;
	read_tuple(sk, &t);
	current_actor(&actor);
	begin_listener_key(&key, &t);
	__builtin_memset(&owner, 0, sizeof(owner));
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
	begin_listener_key(&key, &t);
	listeners_del(&key);
}

/* Softirq: `current` is whoever was interrupted, so the owner is who listens there, else who made the listening socket. */
static __always_inline void owner_of_listener(void *sk, const struct tuple *t, struct actor *actor)
{
	struct listener_key key;
	struct listener *owner;
	__builtin_memset(actor, 0, sizeof(*actor));
	begin_listener_key(&key, t);
	owner = listeners_get(&key);
	if (!owner) { /* an accepted socket has its listener's family, so one wildcard is all there can be */
		if (t->family == FAMILY_INET6)
			__builtin_memset(key.local, 0, 16);
		else
			map_v4(key.local, 0);
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

static __always_inline int is_tcp(void *sk)
{
	u16 protocol = 0;
	READ_PROTOCOL(protocol, sk);
	return protocol == PROTOCOL_TCP;
}

static __always_inline void on_tcp_established(void *sk, int from, int again)
{
	struct connection *known, made;
	struct actor actor;
	struct tuple t;
	u64 id = (u64)sk;
	struct event event = {.count = 1};

	known = connections_get(&id);
	if (again && known && known->state == CONNECTION_OPEN)
		return;
	event.now_ns = bpf_ktime_get_boot_ns();
	if (known && known->state == CONNECTION_ASKED) {
		known->since_ns = event.now_ns;
		known->state = CONNECTION_OPEN;
		made.key = known->key;
		account(sk, &made.key, &event, 0, known->pid, known->process);
		return;
	}
	if (!is_tcp(sk))
		return;
	read_tuple(sk, &t);
	if (from == TCP_SYN_RECV) {
		owner_of_listener(sk, &t, &actor);
		begin_key(&made.key, &t, actor.cgroup_id, PROTOCOL_TCP);
		made.key.direction = DIRECTION_INGRESS;
		made.key.port = t.local_port;
	} else { /* SYN sent before the agent came */
		__builtin_memset(&actor, 0, sizeof(actor));
		begin_key(&made.key, &t, cgroup_of_socket(sk), PROTOCOL_TCP);
		made.key.direction = DIRECTION_EGRESS;
		made.key.port = t.remote_port;
	}
	made.since_ns = event.now_ns;
	made.pid = actor.pid;
	made.soft_error = 0;
	made.state = CONNECTION_OPEN;
	made.zero = 0;
	__builtin_memcpy(made.process, actor.process, PROCESS_BYTES);
	if (keep_connection(&id, known, &made) && !again)
		return; /* no room: the second time finds nothing and counts it */
	account(sk, &made.key, &event, &t, actor.pid, actor.process);
}

static __always_inline void on_tcp_close(void *sk, int from, int again)
{
	struct connection *known, last;
	u64 id = (u64)sk, retransmitted = 0, flags = 0;
	int error = 0;
	struct event event = {};

	known = connections_get(&id);
	if (!known || known->state == CONNECTION_OVER) {
		if (again || !is_tcp(sk))
			return;
		if (from == TCP_LISTEN)
			on_tcp_unlisten(sk);
		else if (from != TCP_SYN_RECV)
			count(COUNTER_UNKNOWN_CLOSE, 1);
		return;
	}
	last = *known;
	drop_connection(&id, known);
	event.now_ns = bpf_ktime_get_boot_ns();
	event.age_ns = event.now_ns - last.since_ns;
	if (last.state == CONNECTION_OPEN) {
		/* Payload alone: bytes_acked counts SYN and FIN, bytes_sent counts data octets (RFC 4898). */
		READ(event.tx_bytes, TCP_BYTES_SENT, sk);
		READ(event.rx_bytes, TCP_BYTES_RECEIVED, sk);
		if (event.tx_bytes) {
			READ(retransmitted, TCP_BYTES_RETRANS, sk);
			event.tx_bytes -= retransmitted;
		}
		if (event.rx_bytes) {
			READ(flags, SOCK_FLAGS, sk);
			if (flags & FIN_RECEIVED)
				event.rx_bytes -= 1; /* rcv_nxt moves over the FIN, too */
		}
	} else {
		READ(error, SOCK_ERROR, sk);
		if (!error)
			READ(error, SOCK_SOFT_ERROR, sk);
		if (!error)
			error = last.soft_error;
		last.key.error = error ? error : ERROR_ABORTED;
		event.count = 1;
	}
	account(sk, &last.key, &event, 0, last.pid, last.process);
}

/*
 * Mostly the first program has just seen it, on this CPU, and the second can leave at once. Where a softirq came between,
 * `seen` is another transition, and the second looks into `connections`, which knows.
 */
static __always_inline int seen_before(void *sk, int from, int to, int again)
{
	struct scratch *here = scratch_here();
	u64 transition = (u64)sk << 16 | (from & 0xff) << 8 | (to & 0xff);
	if (!here)
		return 0;
	if (again)
		return here->seen == transition;
	here->seen = transition;
	return 0;
}

static __always_inline int on_tcp_state(void *sk, int from, int to, int again)
{
	if (to == TCP_ESTABLISHED) {
		if ((from == TCP_SYN_SENT || from == TCP_SYN_RECV) && !seen_before(sk, from, to, again))
			on_tcp_established(sk, from, again);
	} else if (to == TCP_CLOSE) {
		if (!seen_before(sk, from, to, again))
			on_tcp_close(sk, from, again);
	} else if (again) {
		return 0; /* the two below happen in process context, where nothing of ours is interrupted */
#ifdef CONNECT_BY_STATE
	} else if (to == TCP_SYN_SENT) {
		if (is_tcp(sk))
			on_tcp_connect(sk);
#endif
	} else if (to == TCP_LISTEN) {
		if (is_tcp(sk))
			on_tcp_listen(sk);
	}
	return 0;
}

/* An ICMP error that arrives while the caller owns the socket reaches sk_err_soft only, and only after this report. */
static __always_inline int on_error_report(void *sk)
{
	struct connection *known;
	u64 id = (u64)sk;
	int error = 0;
	known = connections_get(&id);
	if (!known || known->state != CONNECTION_ASKED)
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
	u64 id = (u64)sk;
	if (!sk)
		return 0;
	known = connections_get(&id);
	if (!known || known->state != CONNECTION_OPEN || known->key.direction != DIRECTION_INGRESS || known->process[0])
		return 0;
	current_actor(&actor);
	known->pid = actor.pid;
	__builtin_memcpy(known->process, actor.process, PROCESS_BYTES);
	return 0;
}
