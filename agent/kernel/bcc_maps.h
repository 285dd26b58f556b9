/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Spelled out, because BCC refuses map methods inside a macro ("cannot use map function inside a macro"). */
static inline void *flows_active(void) { int zero = 0; return flows.lookup(&zero); }
static inline struct scratch *scratch_here(void) { int zero = 0; return scratch.lookup(&zero); }
static inline u64 *counters_at(u32 index) { return counters.lookup(&index); }
static inline int announcements_output(void *event, u64 bytes) { return announcements.ringbuf_output(event, bytes, 0); }
static inline struct connection *connections_get(u64 *k) { return connections.lookup(k); }
static inline int connections_put(u64 *k, struct connection *v) { return connections.update(k, v); }
static inline void connections_del(u64 *k) { connections.delete(k); }
static inline struct listener *listeners_get(struct listener_key *k) { return listeners.lookup(k); }
static inline void listeners_put(struct listener_key *k, struct listener *v) { listeners.update(k, v); }
static inline void listeners_del(struct listener_key *k) { listeners.delete(k); }
static inline u64 *sightings_get(struct sighting *k) { return sightings.lookup(k); }
static inline void sightings_put(struct sighting *k, u64 *v) { sightings.update(k, v); }
static inline u64 *udp_directions_get(struct udp_key *k) { return udp_directions.lookup(k); }
static inline void udp_directions_put(struct udp_key *k, u64 *v) { udp_directions.update(k, v); }
static inline struct peer *udp_peers_get(u64 *k) { return udp_peers.lookup(k); }
static inline void udp_peers_put(u64 *k, struct peer *v) { udp_peers.update(k, v); }
