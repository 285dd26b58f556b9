/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* clang's half of flows.bpf.c: field reads relocated by CO-RE, maps in .maps. Mirror of bcc.h. */
#ifndef WATTLE_CORE_H
#define WATTLE_CORE_H

#ifndef BPF_ANY /* an anonymous enum in the kernel: not among the types that are written out */
#define BPF_ANY 0
#define BPF_NOEXIST 1
#endif

#define FIELD_SOCK_NET(p) (&((struct sock *)(p))->__sk_common.skc_net.net)
#define FIELD_SOCK_FAMILY(p) (&((struct sock *)(p))->__sk_common.skc_family)
#define FIELD_SOCK_LOCAL_PORT(p) (&((struct sock *)(p))->__sk_common.skc_num)
#define FIELD_SOCK_REMOTE_PORT(p) (&((struct sock *)(p))->__sk_common.skc_dport)
#define FIELD_SOCK_LOCAL_V4(p) (&((struct sock *)(p))->__sk_common.skc_rcv_saddr)
#define FIELD_SOCK_REMOTE_V4(p) (&((struct sock *)(p))->__sk_common.skc_daddr)
#define FIELD_SOCK_LOCAL_V6(p) (&((struct sock *)(p))->__sk_common.skc_v6_rcv_saddr)
#define FIELD_SOCK_REMOTE_V6(p) (&((struct sock *)(p))->__sk_common.skc_v6_daddr)
#define FIELD_SOCK_FLAGS(p) (&((struct sock *)(p))->__sk_common.skc_flags)
#define FIELD_SOCK_ERROR(p) (&((struct sock *)(p))->sk_err)
#define FIELD_SOCK_SOFT_ERROR(p) (&((struct sock *)(p))->sk_err_soft)
#define FIELD_SOCK_PROTOCOL(p) (&((struct sock *)(p))->sk_protocol)
#define FIELD_SOCK_CGROUP(p) (&((struct sock *)(p))->sk_cgrp_data.cgroup)
#define FIELD_NET_INODE(p) (&((struct net *)(p))->ns.inum)
#define FIELD_NET_COOKIE(p) (&((struct net *)(p))->net_cookie)
#define FIELD_TCP_BYTES_SENT(p) (&((struct tcp_sock *)(p))->bytes_sent)
#define FIELD_TCP_BYTES_RETRANS(p) (&((struct tcp_sock *)(p))->bytes_retrans)
#define FIELD_TCP_BYTES_RECEIVED(p) (&((struct tcp_sock *)(p))->bytes_received)
#define FIELD_TASK_LEADER(p) (&((struct task_struct *)(p))->group_leader)
#define FIELD_TASK_COMM(p) (&((struct task_struct *)(p))->comm)
#define FIELD_TASK_CGROUPS(p) (&((struct task_struct *)(p))->cgroups)
#define FIELD_CSS_SET_SUBSYS(p) (&((struct css_set *)(p))->subsys)
#define FIELD_CSS_CGROUP(p) (&((struct cgroup_subsys_state *)(p))->cgroup)
#define FIELD_CGROUP_KN(p) (&((struct cgroup *)(p))->kn)
#define FIELD_CGROUP_ROOT(p) (&((struct cgroup *)(p))->root)
#define FIELD_ROOT_HIERARCHY_ID(p) (&((struct cgroup_root *)(p))->hierarchy_id)
#define FIELD_KERNFS_ID(p) (&((struct kernfs_node *)(p))->id)
#define FIELD_MESSAGE_NAME(p) (&((struct msghdr *)(p))->msg_name)
#define FIELD_SKB_HEAD(p) (&((struct sk_buff *)(p))->head)
#define FIELD_SKB_NETWORK(p) (&((struct sk_buff *)(p))->network_header)
#define FIELD_SKB_TRANSPORT(p) (&((struct sk_buff *)(p))->transport_header)
#define FIELD_SKB_PROTOCOL(p) (&((struct sk_buff *)(p))->protocol)

#define SOCK_HEAD_BYTES 96
#define READ_HEAD(into, sk) bpf_probe_read_kernel(into, sizeof(into), sk)
/* The address of a field of a struct at 0 is its offset, a relocated constant. */
#define HEAD(type, field, head) (*(type *)((head) + (u64)FIELD_##field(0)))
#define READ(into, field, from) bpf_core_read(&(into), sizeof(into), FIELD_##field(from))
#define READ_AT(into, field, from, extra) bpf_probe_read_kernel(&(into), sizeof(into), (char *)FIELD_##field(from) + (extra))
/* A bit-field before 5.6, a bit-field again for sk_userlocks before 6.2: relocated with its shift and mask. */
#define READ_PROTOCOL(into, sk) into = BPF_CORE_READ_BITFIELD_PROBED((struct sock *)(sk), sk_protocol)
#define READ_USERLOCKS(into, sk) into = BPF_CORE_READ_BITFIELD_PROBED((struct sock *)(sk), sk_userlocks)

#define MAP(kind, name, k, v, entries) \
	struct { \
		__uint(type, BPF_MAP_TYPE_##kind); \
		__type(key, k); \
		__type(value, v); \
		__uint(max_entries, entries); \
	} name SEC(".maps");
#define COUNTER_MAP(name, entries) MAP(PERCPU_ARRAY, name, u32, u64, entries)
#define PER_CPU(name, value) MAP(PERCPU_ARRAY, name, u32, value, 1)
#define RING(name, pages) \
	struct { \
		__uint(type, BPF_MAP_TYPE_RINGBUF); \
		__uint(max_entries, (pages) * 4096); \
	} name SEC(".maps");
#define FLOW_MAPS(entries) \
	struct flows_inner { \
		__uint(type, BPF_MAP_TYPE_HASH); \
		__type(key, struct flow_key); \
		__type(value, struct flow_stats); \
		__uint(max_entries, entries); \
	} flows_0 SEC(".maps"), flows_1 SEC(".maps"); \
	struct { \
		__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS); \
		__uint(key_size, 4); \
		__uint(max_entries, 1); \
		__array(values, struct flows_inner); \
	} flows SEC(".maps") = {.values = {(void *)&flows_0}};

#define RAW_TRACEPOINT(name) SEC("raw_tp/" #name) int hook_##name(struct bpf_raw_tracepoint_args *ctx)
#define RAW_TRACEPOINT_AGAIN(name) SEC("raw_tp/" #name) int hook_##name##_again(struct bpf_raw_tracepoint_args *ctx)
#define KPROBE(name) SEC("kprobe/" #name) int hook_##name(struct pt_regs *ctx)
#define KRETPROBE(name) SEC("kretprobe/" #name) int hook_##name##_return(struct pt_regs *ctx)
#define CGROUP_HOOK(name) SEC("cgroup/" #name) int hook_##name(struct bpf_sock_addr *ctx)

#define REGISTER(ctx, number) (((unsigned long *)(ctx))[number])
#define ARGUMENT1(ctx) REGISTER(ctx, REGISTER_ARGUMENT1)
#define ARGUMENT2(ctx) REGISTER(ctx, REGISTER_ARGUMENT2)
#define ARGUMENT3(ctx) REGISTER(ctx, REGISTER_ARGUMENT3)
#define RETURNED(ctx) REGISTER(ctx, REGISTER_RETURNED)

#endif
