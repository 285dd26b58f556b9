// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * Counts flows where they happen. Logic:
 *   1. A hook learns what happened: a TCP state transition, a datagram sent or received.
 *   2. The rules below decide direction, peer, service port and confidence; never by the port number of a TCP connection.
 *   3. account() adds it to the flow map that is active now. What does not fit is counted, per reason.
 *
 * One source, two toolchains: BCC on the node (default), and clang with CO-RE (WATTLE_CORE). They differ in how a field of
 * a kernel struct is read (READ) and how a map is declared; hooks differ only in the thin layer at the end of the file.
 * Under BCC no kernel type is known: offsets come from the kernel's BTF as -DOFFSET_<FIELD> (agent/kernel/headers.py).
 */
#ifdef WATTLE_CORE
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "flows.h"
#include "core.h"
char LICENSE[] SEC("license") = "Dual BSD/GPL";
#else
#include <linux/types.h>
#include "flows.h"
#include "bcc.h"
#endif

#ifndef FLOW_ENTRIES
#define FLOW_ENTRIES 65536
#endif
#ifndef EPHEMERAL_LOW
#define EPHEMERAL_LOW 32768 /* net.ipv4.ip_local_port_range */
#endif

#define TCP_ESTABLISHED 1
#define TCP_SYN_SENT 2
#define TCP_SYN_RECV 3
#define TCP_CLOSE 7
#define TCP_LISTEN 10
#define PROTOCOL_TCP 6
#define PROTOCOL_UDP 17
#define FAMILY_INET6 10
#define MESSAGE_PEEK 2         /* MSG_PEEK */
#define BIND_PORT_LOCK 8       /* SOCK_BINDPORT_LOCK: bind() with a port that is not 0 */
#define FIN_RECEIVED (1 << 1)  /* SOCK_DONE, set by tcp_fin() only */
#define HOST_UNREACHABLE 113   /* EHOSTUNREACH */

/* One TCP socket between its first and its last state. */
struct connection {
	u64 since_ns;
	u64 cgroup_id;
	u32 pid;
	u16 port;
	u8 direction;
	u8 established;
	u16 soft_error;
	u16 zero[3];
	char process[PROCESS_BYTES];
};

struct udp_key {
	u64 netns_cookie;
	u8 remote[16];
	u16 local_port;
	u16 remote_port;
	u32 zero;
};

struct sighting {
	u64 netns_cookie;
	u64 cgroup_id;
};

/* The peer that a cgroup hook saw, until the length tracepoint of the same call. */
struct peer {
	u8 remote[16];
	u16 port;
	u16 waiting; /* 0 = taken; the entry stays, because writing in place costs a third of a delete and an update */
	u16 zero[2];
};

/* Both ends of a socket. */
struct tuple {
	u64 netns_cookie;
	u8 local[16] __attribute__((aligned(8)));
	u8 remote[16] __attribute__((aligned(8)));
	u32 netns_inode;
	u16 family;
	u16 local_port;
	u16 remote_port;
	u16 zero;
};

struct actor {
	u64 cgroup_id;
	u32 pid;
	u32 zero;
	char process[PROCESS_BYTES];
};

FLOW_MAPS(FLOW_ENTRIES)
MAP(LRU_HASH, connections, u64, struct connection, 65536)
MAP(HASH, listeners, struct listener_key, struct listener, 16384)
MAP(LRU_HASH, sightings, struct sighting, u64, 16384)
MAP(LRU_HASH, udp_directions, struct udp_key, u64, 65536)
MAP(LRU_HASH, udp_peers, u64, struct peer, 8192)
COUNTER_MAP(counters, COUNTERS)
RING(announcements, 64)

#ifdef WATTLE_CORE
#include "core_maps.h"
#else
#include "bcc_maps.h"
#endif

static __always_inline u16 swap16(u16 value) { return (value >> 8) | (value << 8); }

static __always_inline void map_v4(u8 *address, u32 v4)
{
	*(u64 *)address = 0;
	*(u32 *)(address + 8) = 0xffff0000;
	*(u32 *)(address + 12) = v4;
}

static __always_inline int is_v4_mapped(const u8 *address)
{
	return *(u64 *)address == 0 && *(u32 *)(address + 8) == 0xffff0000;
}

static __always_inline void count(u32 which, u64 events)
{
	u64 *cell = counters_at(which);
	if (cell)
		*cell += events; /* per CPU */
}

/* ---- who ------------------------------------------------------------------------------------------------------------ */

static __always_inline u64 cgroup_of_task(void *task)
{
#ifdef CGROUP_V1_SUBSYSTEM
	void *set = 0, *state = 0, *group = 0, *node = 0;
	u64 id = 0;
	READ(set, TASK_CGROUPS, task);
	READ_AT(state, CSS_SET_SUBSYS, set, 8 * CGROUP_V1_SUBSYSTEM);
	READ(group, CSS_CGROUP, state);
	READ(node, CGROUP_KN, group);
	READ(id, KERNFS_ID, node);
	return id;
#else
	return bpf_get_current_cgroup_id();
#endif
}

/* The cgroup of whoever made the socket: right where `current` is only whoever was interrupted. cgroup v2 alone. */
static __always_inline u64 cgroup_of_socket(void *sk)
{
	u64 id = 0;
#ifndef CGROUP_V1_SUBSYSTEM
	void *group = 0, *node = 0;
	READ(group, SOCK_CGROUP, sk);
	if (!group || ((u64)group & 1)) /* before 5.15 the word may hold a v1 class id, tagged in bit 0 */
		return 0;
	READ(node, CGROUP_KN, group);
	READ(id, KERNFS_ID, node);
#endif
	return id;
}

/* Process context only. The process is the thread group leader: a thread may carry any name. */
static __always_inline void current_actor(struct actor *actor)
{
	void *task = (void *)bpf_get_current_task(), *leader = 0;
	__builtin_memset(actor, 0, sizeof(*actor));
	actor->pid = bpf_get_current_pid_tgid() >> 32;
	actor->cgroup_id = cgroup_of_task(task);
	READ(leader, TASK_LEADER, task);
	READ(actor->process, TASK_COMM, leader);
}

static __always_inline void announce(u64 netns_cookie, u32 netns_inode, u64 cgroup_id, u32 pid)
{
	struct sighting key = {.netns_cookie = netns_cookie, .cgroup_id = cgroup_id};
	if (sightings_get(&key))
		return;
	u64 now = bpf_ktime_get_boot_ns();
	struct first_sight event = {
		.kind = ANNOUNCE_FIRST_SIGHT, .pid = pid, .cgroup_id = cgroup_id, .netns_cookie = netns_cookie,
		.netns_inode = netns_inode};
	if (announcements_output(&event, sizeof(event))) {
		count(COUNTER_RING_LOST, 1); /* the pair stays unseen, so the next event announces it again */
		return;
	}
	sightings_put(&key, &now);
}

/* ---- what ----------------------------------------------------------------------------------------------------------- */

static __always_inline void read_tuple(void *sk, struct tuple *t)
{
	void *net = 0;
	u32 v4 = 0;
	__builtin_memset(t, 0, sizeof(*t));
	READ(net, SOCK_NET, sk);
	READ(t->netns_inode, NET_INODE, net);
	READ(t->netns_cookie, NET_COOKIE, net);
	READ(t->family, SOCK_FAMILY, sk);
	READ(t->local_port, SOCK_LOCAL_PORT, sk);
	READ(t->remote_port, SOCK_REMOTE_PORT, sk);
	t->remote_port = swap16(t->remote_port);
	if (t->family == FAMILY_INET6) {
		READ(t->local, SOCK_LOCAL_V6, sk);
		READ(t->remote, SOCK_REMOTE_V6, sk);
	} else {
		READ(v4, SOCK_LOCAL_V4, sk);
		map_v4(t->local, v4);
		READ(v4, SOCK_REMOTE_V4, sk);
		map_v4(t->remote, v4);
	}
}

/* What happened to a flow, without who and where. */
struct event {
	u64 count;
	u64 tx_bytes;
	u64 rx_bytes;
	u64 duration_ns;
	u16 port;
	u16 error;
	u8 protocol;
	u8 direction;
	u8 confidence;
	u8 zero;
};

static __always_inline void add(struct flow_stats *stats, const struct event *event, u64 now)
{
	stats->last_ns = now;
	if (event->count)
		__sync_fetch_and_add(&stats->count, event->count);
	if (event->tx_bytes)
		__sync_fetch_and_add(&stats->tx_bytes, event->tx_bytes);
	if (event->rx_bytes)
		__sync_fetch_and_add(&stats->rx_bytes, event->rx_bytes);
	if (event->duration_ns)
		__sync_fetch_and_add(&stats->duration_ns, event->duration_ns);
}

static __always_inline void account(const struct tuple *t, const struct actor *actor, const struct event *event)
{
	struct flow_key key;
	struct flow_stats fresh, *stats;
	u64 now = bpf_ktime_get_boot_ns();
	void *flows = flows_active();

	if (!flows)
		return;
	__builtin_memset(&key, 0, sizeof(key));
	key.netns_cookie = t->netns_cookie;
	key.cgroup_id = actor->cgroup_id;
	__builtin_memcpy(key.remote, t->remote, 16);
	key.port = event->port;
	key.protocol = event->protocol;
	key.direction = event->direction;
	key.error = event->error;
	key.confidence = event->confidence;

	count(COUNTER_EVENTS, 1);
	stats = bpf_map_lookup_elem(flows, &key);
	if (!stats) {
		__builtin_memset(&fresh, 0, sizeof(fresh));
		fresh.first_ns = fresh.last_ns = now;
		fresh.count = event->count;
		fresh.tx_bytes = event->tx_bytes;
		fresh.rx_bytes = event->rx_bytes;
		fresh.duration_ns = event->duration_ns;
		fresh.pid = actor->pid;
		__builtin_memcpy(fresh.local, t->local, 16);
		__builtin_memcpy(fresh.process, actor->process, PROCESS_BYTES);
		announce(key.netns_cookie, t->netns_inode, key.cgroup_id, actor->pid);
		if (!bpf_map_update_elem(flows, &key, &fresh, BPF_NOEXIST))
			return;
		stats = bpf_map_lookup_elem(flows, &key); /* another CPU was first, or the map is full */
		if (!stats) {
			count(COUNTER_MAP_FULL, event->count ? event->count : 1);
			return;
		}
	}
	add(stats, event, now);
}

/* ---- TCP ------------------------------------------------------------------------------------------------------------ */

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

/* ---- UDP ------------------------------------------------------------------------------------------------------------ */

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

static __always_inline void learn_udp_direction(void *sk, const struct tuple *t, int sends, struct event *event)
{
	struct udp_key key;
	u64 *known, learned;
	u8 locks = 0;

	READ_USERLOCKS(locks, sk);
	event->direction = DIRECTION_EGRESS;
	event->confidence = confidence_of_client(t);
	if (!(locks & BIND_PORT_LOCK))
		return;
	__builtin_memset(&key, 0, sizeof(key));
	key.netns_cookie = t->netns_cookie;
	key.local_port = t->local_port;
	key.remote_port = t->remote_port;
	__builtin_memcpy(key.remote, t->remote, 16);
	known = udp_directions_get(&key);
	if (known) {
		event->direction = *known & 0xff;
		event->confidence = (*known >> 8) & 0xff;
		return;
	}
	if (!sends) {
		event->direction = DIRECTION_INGRESS;
		event->confidence = CONFIDENCE_HIGH;
	} else if (t->local_port < EPHEMERAL_LOW && t->remote_port >= EPHEMERAL_LOW) {
		event->direction = DIRECTION_INGRESS;
		event->confidence = CONFIDENCE_LOW;
	}
	learned = event->direction | ((u64)event->confidence << 8);
	udp_directions_put(&key, &learned);
}

/* Process context. t->remote and t->remote_port are the datagram's peer. */
static __always_inline int on_datagram(void *sk, const struct tuple *t, int sends, u64 bytes)
{
	struct actor actor;
	struct event event = {.protocol = PROTOCOL_UDP};
	if (!t->remote_port || !t->local_port)
		return 0; /* an error queue, or a socket that was closed meanwhile */
	learn_udp_direction(sk, t, sends, &event);
	current_actor(&actor);
	event.port = event.direction == DIRECTION_EGRESS ? t->remote_port : t->local_port;
	event.count = sends == (event.direction == DIRECTION_EGRESS); /* datagrams of the initiating side */
	if (sends)
		event.tx_bytes = bytes;
	else
		event.rx_bytes = bytes;
	account(t, &actor, &event);
	return 0;
}

/* ---- identity ------------------------------------------------------------------------------------------------------- */

static __always_inline int on_cgroup_created(void *group, const char *path)
{
	struct cgroup_created event;
	void *node = 0, *root = 0;
	__builtin_memset(&event, 0, sizeof(event));
	event.kind = ANNOUNCE_CGROUP_CREATED;
	READ(root, CGROUP_ROOT, group);
	READ(event.hierarchy_id, ROOT_HIERARCHY_ID, root);
	if (event.hierarchy_id != CGROUP_HIERARCHY_ID)
		return 0;
	READ(node, CGROUP_KN, group);
	READ(event.cgroup_id, KERNFS_ID, node);
	bpf_probe_read_kernel_str(event.path, sizeof(event.path), path);
	if (announcements_output(&event, sizeof(event)))
		count(COUNTER_RING_LOST, 1);
	return 0;
}

/* ---- hooks: every backend ------------------------------------------------------------------------------------------- */

RAW_TRACEPOINT(inet_sock_set_state)
{
	return on_tcp_state((void *)ctx->args[0], ctx->args[1], ctx->args[2]);
}

RAW_TRACEPOINT(inet_sk_error_report)
{
	return on_error_report((void *)ctx->args[0]);
}

RAW_TRACEPOINT(cgroup_mkdir)
{
	return on_cgroup_created((void *)ctx->args[0], (const char *)ctx->args[1]);
}

#ifdef BACKEND_KPROBE
/* ---- hooks: kprobe -------------------------------------------------------------------------------------------------- */

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
#endif

#ifdef BACKEND_TRACEPOINT
/* ---- hooks: tracepoint and cgroup, for kernels that refuse kprobes ----------------------------------------------------
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
	read_tuple(sk, &t);
	task = bpf_get_current_pid_tgid();
	peer = udp_peers_get(&task);
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
#endif
