/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* BCC's half of flows.bpf.c: field reads by numeric offset, BCC's map declarations. Mirror of core.h. */
#ifndef WATTLE_BCC_H
#define WATTLE_BCC_H

/* By offset, never `&ptr->field`: BCC parses with the host's data layout and emits with BPF's. */
#define READ(into, field, from) bpf_probe_read_kernel(&(into), sizeof(into), (char *)(from) + OFFSET_##field)
#define READ_AT(into, field, from, extra) \
	bpf_probe_read_kernel(&(into), sizeof(into), (char *)(from) + OFFSET_##field + (extra))
/* One read of a socket's head in place of eight: each costs as much for 2 bytes as for 88. */
#define READ_HEAD(into, sk) bpf_probe_read_kernel(into, sizeof(into), sk)
#define HEAD(type, field, head) (*(type *)((head) + OFFSET_##field))
#define READ_PROTOCOL(into, sk) READ(into, SOCK_PROTOCOL, sk)
#define READ_USERLOCKS(into, sk) \
	do { \
		bpf_probe_read_kernel(&(into), 1, (char *)(sk) + OFFSET_SOCK_USERLOCKS); \
		into = (into >> SHIFT_SOCK_USERLOCKS) & MASK_SOCK_USERLOCKS; \
	} while (0)

#define TABLE_HASH "hash"
#define TABLE_LRU_HASH "lru_hash"
#define MAP(type, name, key, value, entries) BPF_TABLE(TABLE_##type, key, value, name, entries);
#define COUNTER_MAP(name, entries) BPF_TABLE("percpu_array", u32, u64, name, entries);
#define PER_CPU(name, value) BPF_TABLE("percpu_array", u32, value, name, 1);
#define RING(name, pages) BPF_RINGBUF_OUTPUT(name, pages);
#define FLOW_MAPS(entries) \
	BPF_TABLE("hash", struct flow_key, struct flow_stats, flows_0, entries); \
	BPF_TABLE("hash", struct flow_key, struct flow_stats, flows_1, entries); \
	BPF_ARRAY_OF_MAPS(flows, "flows_0", 1);

#define RAW_TRACEPOINT(name) int hook_##name(struct bpf_raw_tracepoint_args *ctx)
#define RAW_TRACEPOINT_AGAIN(name) int hook_##name##_again(struct bpf_raw_tracepoint_args *ctx)
#define KPROBE(name) int hook_##name(struct pt_regs *ctx)
#define KRETPROBE(name) int hook_##name##_return(struct pt_regs *ctx)
#define CGROUP_HOOK(name) int hook_##name(struct bpf_sock_addr *ctx)

/* Register numbers in struct pt_regs come from the loader, which knows the machine. */
#define REGISTER(ctx, number) (((unsigned long *)(ctx))[number])
#define ARGUMENT1(ctx) REGISTER(ctx, REGISTER_ARGUMENT1)
#define ARGUMENT2(ctx) REGISTER(ctx, REGISTER_ARGUMENT2)
#define ARGUMENT3(ctx) REGISTER(ctx, REGISTER_ARGUMENT3)
#define RETURNED(ctx) REGISTER(ctx, REGISTER_RETURNED)

#endif
