/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Mirror of bcc_maps.h. */
static __always_inline void *flows_active(void) { u32 zero = 0; return bpf_map_lookup_elem(&flows, &zero); }
static __always_inline struct scratch *scratch_here(void)
{
	u32 zero = 0;
	return bpf_map_lookup_elem(&scratch, &zero);
}
static __always_inline u64 *counters_at(u32 index) { return bpf_map_lookup_elem(&counters, &index); }
static __always_inline int announcements_output(void *event, u64 bytes)
{
	return bpf_ringbuf_output(&announcements, event, bytes, 0);
}

#define ACCESS(name, key, value) \
	static __always_inline value *name##_get(key *k) { return bpf_map_lookup_elem(&name, k); } \
	static __always_inline int name##_put(key *k, value *v) { return bpf_map_update_elem(&name, k, v, BPF_ANY); } \
	static __always_inline void name##_del(key *k) { bpf_map_delete_elem(&name, k); }

ACCESS(connections, u64, struct connection)
ACCESS(listeners, struct listener_key, struct listener)
ACCESS(sightings, struct sighting, u64)
ACCESS(udp_directions, struct udp_key, u64)
ACCESS(udp_peers, u64, struct peer)
