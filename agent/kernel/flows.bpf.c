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

enum connection_state { CONNECTION_OVER, CONNECTION_ASKED, CONNECTION_OPEN };

/* One TCP socket between its first and its last state, and its flow, so that no later event works that out again. */
struct connection {
	u64 since_ns;
	struct flow_key key;
	u32 pid;
	u16 soft_error;
	u8 state; /* enum connection_state; an entry that is over waits for the next socket at this address */
	u8 zero;
	char process[PROCESS_BYTES];
};

/* Of one CPU. */
struct scratch {
	u64 seen; /* the last transition that the first of the two state programs saw */
	u64 spare; /* entries of `connections` that are over, left here less those taken; may be "negative" */
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
	u8 local[16] __attribute__((aligned(8)));
	u8 remote[16] __attribute__((aligned(8)));
	void *net;
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
MAP(HASH, connections, u64, struct connection, 65536)
PER_CPU(scratch, struct scratch)
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

#ifdef CGROUP_V1_SUBSYSTEM
static __always_inline u64 cgroup_of_task(void *task)
{
	void *set = 0, *state = 0, *group = 0, *node = 0;
	u64 id = 0;
	READ(set, TASK_CGROUPS, task);
	READ_AT(state, CSS_SET_SUBSYS, set, 8 * CGROUP_V1_SUBSYSTEM);
	READ(group, CSS_CGROUP, state);
	READ(node, CGROUP_KN, group);
	READ(id, KERNFS_ID, node);
	return id;
}
#endif

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

/* Process context only. */
static __always_inline u64 current_cgroup(void)
{
#ifdef CGROUP_V1_SUBSYSTEM
	return cgroup_of_task((void *)bpf_get_current_task());
#else
	return bpf_get_current_cgroup_id();
#endif
}

/* Process context only. The process is the thread group leader: a thread may carry any name. */
static __always_inline void current_actor(struct actor *actor)
{
	void *task = (void *)bpf_get_current_task(), *leader = 0;
	u64 ids = bpf_get_current_pid_tgid();
	actor->cgroup_id = current_cgroup();
	actor->pid = ids >> 32;
	actor->zero = 0;
	__builtin_memset(actor->process, 0, PROCESS_BYTES);
	if (actor->pid == (u32)ids) { /* the leader itself */
		bpf_get_current_comm(actor->process, PROCESS_BYTES);
		return;
	}
	READ(leader, TASK_LEADER, task);
	READ(actor->process, TASK_COMM, leader);
}

static __always_inline void announce(const struct flow_key *flow, u32 netns_inode, u32 pid)
{
	struct sighting key = {.netns_cookie = flow->netns_cookie, .cgroup_id = flow->cgroup_id};
	if (sightings_get(&key))
		return;
	u64 now = bpf_ktime_get_boot_ns();
	struct first_sight event = {
		.kind = ANNOUNCE_FIRST_SIGHT, .pid = pid, .cgroup_id = flow->cgroup_id, .netns_cookie = flow->netns_cookie,
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
	u8 head[SOCK_HEAD_BYTES] __attribute__((aligned(8)));
	READ_HEAD(head, sk);
	t->net = HEAD(void *, SOCK_NET, head);
	t->family = HEAD(u16, SOCK_FAMILY, head);
	t->local_port = HEAD(u16, SOCK_LOCAL_PORT, head);
	t->remote_port = swap16(HEAD(u16, SOCK_REMOTE_PORT, head));
	t->zero = 0;
	if (t->family == FAMILY_INET6) {
		__builtin_memcpy(t->local, &HEAD(u8, SOCK_LOCAL_V6, head), 16);
		__builtin_memcpy(t->remote, &HEAD(u8, SOCK_REMOTE_V6, head), 16);
	} else {
		map_v4(t->local, HEAD(u32, SOCK_LOCAL_V4, head));
		map_v4(t->remote, HEAD(u32, SOCK_REMOTE_V4, head));
	}
}

/* A flow of `t`; direction, port, error and confidence are the caller's. */
static __always_inline void begin_key(struct flow_key *key, const struct tuple *t, u64 cgroup_id, u8 protocol)
{
	void *net = t->net;
	__builtin_memset(key, 0, sizeof(*key));
	READ(key->netns_cookie, NET_COOKIE, net);
	key->cgroup_id = cgroup_id;
	__builtin_memcpy(key->remote, t->remote, 16);
	key->protocol = protocol;
	key->confidence = CONFIDENCE_HIGH;
}

/* What happened to a flow, without who and where. */
struct event {
	u64 now_ns;
	u64 count;
	u64 tx_bytes;
	u64 rx_bytes;
	u64 age_ns; /* how long what ended had lasted; of a UDP answer how long ago it was asked for */
};

/*
 * Two CPUs may write a time at once: of two that are nanoseconds apart one stays. Of two ages the smaller may stay; BPF's
 * compare-and-swap would need newer kernels.
 */
static __always_inline void add(struct flow_stats *stats, const struct event *event)
{
	if (!event->count == !stats->count)
		stats->last_ns = event->now_ns;
	else if (event->count) /* the first that counts: closes before it say nothing about when this flow was opened */
		stats->first_ns = stats->last_ns = event->now_ns;
	if (event->count)
		__sync_fetch_and_add(&stats->count, event->count);
	if (event->tx_bytes)
		__sync_fetch_and_add(&stats->tx_bytes, event->tx_bytes);
	if (event->rx_bytes)
		__sync_fetch_and_add(&stats->rx_bytes, event->rx_bytes);
	if (event->age_ns > stats->longest_ns)
		stats->longest_ns = event->age_ns;
}

/*
 * Adds an event to the interval. What only a flow's first event needs is worked out there: `t` is NULL where it has not
 * been read yet, `process` where it is the current one.
 */
static __always_inline void account(
	void *sk, struct flow_key *key, const struct event *event, const struct tuple *t, u32 pid, const char *process)
{
	struct flow_stats fresh, *stats;
	struct tuple own;
	u32 netns_inode = 0;
	void *net, *flows = flows_active();

	if (!flows)
		return;
	count(COUNTER_EVENTS, 1);
	stats = bpf_map_lookup_elem(flows, key);
	if (stats) {
		add(stats, event);
		return;
	}
	if (!t) {
		read_tuple(sk, &own);
		t = &own;
	}
	__builtin_memset(&fresh, 0, sizeof(fresh));
	fresh.first_ns = fresh.last_ns = event->now_ns;
	fresh.count = event->count;
	fresh.tx_bytes = event->tx_bytes;
	fresh.rx_bytes = event->rx_bytes;
	fresh.longest_ns = event->age_ns;
	__builtin_memcpy(fresh.local, t->local, 16);
	if (process) {
		fresh.pid = pid;
		__builtin_memcpy(fresh.process, process, PROCESS_BYTES);
	} else {
		struct actor actor;
		current_actor(&actor);
		fresh.pid = actor.pid;
		__builtin_memcpy(fresh.process, actor.process, PROCESS_BYTES);
	}
	net = t->net;
	READ(netns_inode, NET_INODE, net);
	announce(key, netns_inode, fresh.pid);
	if (!bpf_map_update_elem(flows, key, &fresh, BPF_NOEXIST))
		return;
	stats = bpf_map_lookup_elem(flows, key); /* another CPU was first, or the map is full */
	if (stats)
		add(stats, event);
	else
		count(COUNTER_MAP_FULL, event->count ? event->count : 1);
}

#include "tcp.h"
#include "udp.h"

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

/*
 * Twice each. The kernel does not run a program on top of itself: when a softirq interrupts one on its CPU and raises the
 * same event for another socket, that event passes the program by. It cannot pass by both: while one is interrupted, the
 * other is not running.
 */
RAW_TRACEPOINT(inet_sock_set_state)
{
	return on_tcp_state((void *)ctx->args[0], ctx->args[1], ctx->args[2], 0);
}

RAW_TRACEPOINT_AGAIN(inet_sock_set_state)
{
	return on_tcp_state((void *)ctx->args[0], ctx->args[1], ctx->args[2], 1);
}

RAW_TRACEPOINT(inet_sk_error_report)
{
	return on_error_report((void *)ctx->args[0]);
}

RAW_TRACEPOINT_AGAIN(inet_sk_error_report)
{
	return on_error_report((void *)ctx->args[0]);
}

RAW_TRACEPOINT(cgroup_mkdir)
{
	return on_cgroup_created((void *)ctx->args[0], (const char *)ctx->args[1]);
}

#ifdef BACKEND_KPROBE
#include "hooks_kprobe.h"
#endif

#ifdef BACKEND_TRACEPOINT
#include "hooks_tracepoint.h"
#endif
