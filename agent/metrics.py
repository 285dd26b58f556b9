"""Every number the agent shows to Prometheus. Each drop, refusal and retry has a reason label."""

from prometheus_client import Counter, Gauge, Histogram

# ---- spool and stream -----------------------------------------------------------------------------------------------

SPOOL_BATCHES = Gauge("wattle_agent_spool_batches", "Batches waiting for the aggregator's commit.")
SPOOL_BYTES = Gauge("wattle_agent_spool_bytes", "Bytes that the spool holds in memory and on disk.")
SPOOL_LIMIT_BYTES = Gauge("wattle_agent_spool_limit_bytes", "Bytes at which the spool gives up its oldest batch.")
SPOOL_DEGRADED = Gauge(
    "wattle_agent_spool_degraded", "1 while the spool cannot write to its directory and keeps batches in memory only."
)
SPOOL_LOST_RECORDS = Counter(
    "wattle_agent_spool_lost_records_total",
    "Flow records that the spool had to give up; each is declared to the aggregator as a Gap.",
    ["reason"],
)
STREAM_CONNECTED = Gauge("wattle_agent_stream_connected", "1 while the aggregator has welcomed this agent.")
STREAM_ALIVE = Gauge(
    "wattle_agent_stream_alive_seconds", "Unix time at which the stream's loop last made a step: must not stand still."
)
STREAM_ENDS = Counter("wattle_agent_stream_ends_total", "Streams that ended, by reason.", ["reason"])
STREAM_SENT = Counter("wattle_agent_stream_sent_total", "Messages sent, by kind, resent ones included.", ["kind"])
STREAM_REJECTS = Counter("wattle_agent_stream_rejected_batches_total", "Batches that the aggregator quarantined.")

# ---- capture --------------------------------------------------------------------------------------------------------

BACKEND = Gauge("wattle_agent_backend", "1 for the backend that is attached.", ["backend"])
BACKEND_REFUSED = Gauge("wattle_agent_backend_refused", "1 for each backend that was tried and refused.", ["backend"])
HOOK_SKIPPED = Gauge("wattle_agent_hook_skipped", "1 for each optional hook this kernel does not have.", ["hook"])
PINNED = Gauge("wattle_agent_pinned", "1 while maps and programs are pinned and outlive a killed agent.")
TAKEN_OVER = Gauge(
    "wattle_agent_taken_over", "1 where this agent took over the programs of one that was killed: none was missed."
)
FLOW_EVENTS = Counter("wattle_agent_flow_events_total", "Flow events that the kernel counted.")
FLOW_RECORDS = Counter("wattle_agent_flow_records_total", "Flow records drained from the kernel.")
EVENTS_LOST = Counter(
    "wattle_agent_events_lost_total",
    "Events that are not in the records, by reason; 0 when nothing is lost.",
    ["reason"],
)
EVENTS_UNREPORTED = Counter(
    "wattle_agent_events_unreported_total",
    "Events that are no pod's flow, or whose pod is unknown, by reason.",
    ["reason"],
)
ANNOUNCEMENTS = Counter("wattle_agent_announcements_total", "First sights and new control groups, by kind.", ["kind"])
MAP_FILL = Gauge("wattle_agent_flow_map_fill_ratio", "Share of the flow map that the last interval used.")
DRAIN_SECONDS = Histogram(
    "wattle_agent_drain_seconds",
    "Time of one drain, by stage.",
    ["stage"],
    buckets=(0.0005, 0.002, 0.008, 0.03, 0.125, 0.5, 2.0),
)
DRAINS_CUT = Counter(
    "wattle_agent_drains_cut_total",
    "Drains that a failing system call cut; the rest comes with a later one.",
    ["reason"],
)
DRAIN_ALIVE = Gauge("wattle_agent_drain_alive_seconds", "Unix time of the last completed drain: must not stand still.")
OPEN_CONNECTIONS = Gauge("wattle_agent_open_connections", "Connections found open in /proc at the last look.")
OPEN_LOOK_FAILURES = Counter(
    "wattle_agent_open_look_failures_total", "Namespaces whose sockets could not be read, by reason.", ["reason"]
)
PROGRAM_RUNS = Gauge(
    "wattle_agent_program_runs", "Runs of each BPF program while kernel.bpf_stats_enabled is on.", ["program"]
)
PROGRAM_SECONDS = Gauge(
    "wattle_agent_program_run_seconds",
    "Time in each BPF program while kernel.bpf_stats_enabled is on.",
    ["program"],
)
