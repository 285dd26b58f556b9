"""Every number the agent shows to Prometheus. Each drop, refusal and retry has a reason label."""

from prometheus_client import Counter, Gauge

# ---- spool and stream -----------------------------------------------------------------------------------------------

SPOOL_BATCHES = Gauge("wattle_agent_spool_batches", "Batches waiting for the aggregator's commit.")
SPOOL_BYTES = Gauge("wattle_agent_spool_bytes", "Bytes that the spool holds in memory and on disk.")
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
