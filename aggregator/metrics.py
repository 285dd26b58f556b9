"""Every number the aggregator shows to Prometheus. Each drop, refusal and retry has a reason label; none has a
peer's.
"""

from prometheus_client import Counter, Gauge, Histogram

# ---- ingest ---------------------------------------------------------------------------------------------------------

INGEST_STREAMS = Gauge("wattle_ingest_streams", "Agents that are connected and welcomed.")
INGEST_STREAM_ENDS = Counter("wattle_ingest_stream_ends_total", "Streams that ended, by reason.", ["reason"])
INGEST_REFUSED_HELLOS = Counter(
    "wattle_ingest_refused_hellos_total", "Agents turned away at Hello, by reason.", ["reason"]
)
INGEST_BATCHES = Counter(
    "wattle_ingest_batches_total",
    "Batches, by what became of them: committed, duplicate, rejected, fenced.",
    ["outcome"],
)
INGEST_FLOW_RECORDS = Counter("wattle_ingest_flow_records_total", "Flow records of committed batches.")
INGEST_BYTES = Counter("wattle_ingest_received_bytes_total", "Bytes of messages received from agents.")
INGEST_REJECTS = Counter("wattle_ingest_rejected_batches_total", "Batches quarantined, by reason.", ["reason"])
INGEST_CLAMPED = Counter(
    "wattle_ingest_clamped_batches_total", "Batches whose times were moved into range, by direction.", ["to"]
)
INGEST_THROTTLED = Counter("wattle_ingest_throttled_total", "Times an agent had to wait, by limit.", ["limit"])
INGEST_GAPS = Counter("wattle_ingest_gap_batches_total", "Batches that agents declared lost, by reason.", ["reason"])
INGEST_CLOCK_SKEW = Gauge(
    "wattle_ingest_largest_clock_skew_seconds", "The largest difference of an agent's wall clock from this one's."
)

TLS_CERTIFICATE_END = Gauge(
    "wattle_tls_certificate_end_seconds",
    "Unix time at which the certificate of ingest and query ends; 0 when it has ended or cannot be read.",
)

# ---- recording ------------------------------------------------------------------------------------------------------

RECORDING_ALIVE = Gauge("wattle_recording_alive_seconds", "Unix time at which the recorder last made a step.")
RECORDING_COMMIT_SECONDS = Histogram("wattle_recording_commit_seconds", "Time of one merge, resolution included.")
RECORDING_GROUP_BATCHES = Histogram(
    "wattle_recording_group_batches", "Batches committed together.", buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500)
)
RECORDING_RETRIES = Counter(
    "wattle_recording_retries_total", "Merges that had to be tried again, by reason.", ["reason"]
)
RECORDING_RESOLVED = Counter(
    "wattle_recording_resolved_identities_total", "Identities asked of the cluster view.", ["answer"]
)
RECORDING_REFUSED = Counter(
    "wattle_recording_refused_flow_records_total", "Flow records that became part of no link, by reason.", ["reason"]
)
RECORDING_LINKS = Gauge("wattle_recording_links", "Links that this process has recorded.")
RECORDING_ROLLED_UP = Counter(
    "wattle_recording_rolled_up_peers_total",
    "Outside addresses recorded as their network, because a workload has too many.",
)
PENDING = Gauge("wattle_pending_flows", "Flows that wait for the cluster view now, 5000 at most; of the leader.")
PENDING_SETTLED = Counter(
    "wattle_pending_settled_flows_total",
    "Flows that waited for the cluster view, by outcome and, of those that nobody could be named for, why.",
    ["outcome", "reason"],
)

PAIR_CONNECTIONS = Counter(
    "wattle_pair_connections_total",
    "Connections, and datagrams of UDP clients, between two workloads; only with pair_series above 0.",
    ["cluster", "source_namespace", "source", "destination_namespace", "destination"],
)
PAIR_BYTES = Counter(
    "wattle_pair_bytes_total",
    "Payload bytes in both directions between two workloads; only with pair_series above 0.",
    ["cluster", "source_namespace", "source", "destination_namespace", "destination"],
)
PAIR_UNLISTED = Counter(
    "wattle_pair_unlisted_connections_total",
    "Connections of pairs that came after pair_series was reached; they have no series of their own.",
)

# ---- store ----------------------------------------------------------------------------------------------------------

STORE_LEADER = Gauge("wattle_store_leader", "1 while this process does the leader's work.")
STORE_RETIRED = Counter(
    "wattle_store_retired_total", "Partitions (PostgreSQL) or rows removed by retention, by table.", ["table"]
)

# ---- cluster view ---------------------------------------------------------------------------------------------------

CLUSTER_CACHE_AGE = Gauge(
    "wattle_cluster_cache_age_seconds", "How long ago the view of this kind was last right.", ["cluster", "kind"]
)
CLUSTER_VIEW_STALE = Gauge(
    "wattle_cluster_view_stale", "1 while verdicts are unknown, the view being old.", ["cluster"]
)
CLUSTER_OBJECTS = Gauge("wattle_cluster_objects", "Objects in the view.", ["cluster", "kind"])
CLUSTER_WATCH_EVENTS = Counter(
    "wattle_cluster_watch_events_total",
    "What happened to a watch: list, gone, forbidden, no-answer, error-event, http-NNN.",
    ["cluster", "kind", "event"],
)
CLUSTER_UNREADABLE = Counter(
    "wattle_cluster_unreadable_objects_total", "Objects left out because they made no sense.", ["cluster", "kind"]
)
CLUSTER_EPISODES_FAILED = Counter(
    "wattle_cluster_episode_saves_failed_total", "Times the history could not be kept; it is tried again.", ["cluster"]
)
CLUSTER_TOKEN_REVIEWS = Counter(
    "wattle_cluster_token_reviews_total", "Tokens shown to the API server, by outcome.", ["cluster", "outcome"]
)

# ---- keeping it right ------------------------------------------------------------------------------------------------

EVENTS_FOUND = Counter(
    "wattle_events_found_total",
    "Events found, by kind: new-link, gone-link, would-be-denied, not-enforced, held-open.",
    ["kind"],
)
EVENTS_HOLDING = Gauge(
    "wattle_events_holding", "Events that hold now, by kind; the leader says so.", ["cluster", "kind"]
)
ALERTS_SENT = Counter(
    "wattle_alerts_sent_total", "Events that were taken, by where they went: webhook, alertmanager.", ["to"]
)
ALERTS_RETRIED = Counter(
    "wattle_alerts_retried_total", "Requests that were not taken and are sent again, by reason.", ["to", "reason"]
)
ALERTS_GIVEN_UP = Counter(
    "wattle_alerts_given_up_total", "Events that nobody was told of, because too many waited.", ["to", "reason"]
)
WATCHES_RUNNING = Gauge(
    "wattle_policy_watches", "Policies on watch that have not ended; the leader says so.", ["cluster"]
)
OPENINGS_LEFT_OUT = Counter(
    "wattle_enforcement_left_out_total", "Sightings of denied links that were not judged, because too many waited."
)
ENFORCEMENT_JUDGED = Counter(
    "wattle_enforcement_judged_total",
    "Sightings of links that policies may deny, by what they say: nothing, unknown, not-enforced, held-open.",
    ["says"],
)
ENFORCEMENT_LINKS = Gauge(
    "wattle_enforcement_links",
    "Links by the verdict of the applied policies: allowed, denied, unknown.",
    ["cluster", "verdict"],
)
KEEPING_STEP_SECONDS = Histogram(
    "wattle_keeping_step_seconds",
    "Time of one step of the background work that keeps policies right, by part.",
    ["part"],
    buckets=(0.001, 0.01, 0.1, 1.0, 10.0),
)
KEEPING_FAILED = Counter(
    "wattle_keeping_failed_steps_total",
    "Steps that failed and are tried again, by part and reason.",
    ["part", "reason"],
)

# ---- review ---------------------------------------------------------------------------------------------------------

REST_REFUSED = Counter(
    "wattle_rest_refused_total", "Requests turned away before any route read them, by reason.", ["reason"]
)
