/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What crosses the boundary between kernel and user space. agent/flow.py and agent/kernel/maps.py mirror these layouts;
 * tests/kernel compares both. No struct has padding that the compiler chose: a hash map compares every byte of a key.
 * Addresses are 16 bytes, IPv4 as v4-mapped IPv6 (RFC 4291 section 2.5.5.2). Times are CLOCK_BOOTTIME.
 */
#ifndef WATTLE_FLOWS_H
#define WATTLE_FLOWS_H

#define PROCESS_BYTES 16
#define CGROUP_PATH_BYTES 320

/* IPFIX information element 61 shifted by one, as in wattle.v1: 0 is "unspecified". */
enum direction { DIRECTION_INGRESS = 1, DIRECTION_EGRESS = 2 };
enum confidence { CONFIDENCE_HIGH = 1, CONFIDENCE_LOW = 2 };

/* No kernel errno is this large (include/linux/err.h MAX_ERRNO): the application closed before an answer came. */
#define ERROR_ABORTED 4095

/* Identity of a flow. The client's ephemeral port is never part of it: port is the server's. */
struct flow_key {
	u64 netns_cookie;
	u64 cgroup_id;
	u8 remote[16];
	u16 port;
	u8 protocol;   /* IANA protocol number */
	u8 direction;  /* enum direction */
	u16 error;     /* 0 = established; errno of a failed attempt, or ERROR_ABORTED */
	u8 confidence; /* enum confidence */
	u8 zero;
};

/*
 * Counters of a flow within one interval. process is in the value: as a key a process could fill the map by renaming.
 * The times are those of what `count` counts; where it is 0, of the rest: what closed of earlier intervals, or was answered.
 */
struct flow_stats {
	u64 first_ns;
	u64 last_ns;
	u64 count; /* connections, attempts, or datagrams of the initiating side */
	u64 tx_bytes;
	u64 rx_bytes;
	u64 longest_ns; /* how long the oldest of what ended had lasted; of UDP answers how long ago they were asked for */
	u32 pid;
	u32 zero;
	u8 local[16];
	char process[PROCESS_BYTES];
};

/* Who listens: keyed by the namespace's inode, because user space can read that and cannot read the cookie. */
struct listener_key {
	u8 local[16];
	u32 netns_inode;
	u16 port;
	u16 zero;
};

struct listener {
	u64 cgroup_id;
	u32 pid;
	u32 zero;
	char process[PROCESS_BYTES];
};

enum announcement_kind { ANNOUNCE_FIRST_SIGHT = 1, ANNOUNCE_CGROUP_CREATED = 2 };

/* A (namespace, cgroup) pair that was never seen before, while its process is still alive. */
struct first_sight {
	u32 kind;
	u32 pid;
	u64 cgroup_id;
	u64 netns_cookie;
	u32 netns_inode; /* tells the node's own namespace, which never dies, from all others; no other use of it is safe */
	u32 zero;
};

/* A control group as it is made: names a pod that is gone before anybody could look for it. */
struct cgroup_created {
	u32 kind;
	u32 hierarchy_id;
	u64 cgroup_id;
	char path[CGROUP_PATH_BYTES];
};

/* Everything that was not counted, per reason; an index of the per-CPU array `counters`. */
enum counter {
	COUNTER_MAP_FULL,      /* flow events refused because the flow map was full */
	COUNTER_RING_LOST,     /* announcements that found the ring full */
	COUNTER_UNCOUNTED_UDP, /* datagrams whose peer the hooks cannot see */
	COUNTER_UNKNOWN_CLOSE, /* closes of connections that were opened before the agent, or evicted */
	COUNTER_EVENTS,        /* flow events counted: the denominator of every share */
	COUNTERS
};

#endif
