"""Ingest: where agents deliver, FlowLink v1."""

from aggregator.ingest.authenticate import LoopbackPlaintext, MutualTLS, StaticToken
from aggregator.ingest.limits import IngestLimits
from aggregator.ingest.listener import ListenerSecurity, PlaintextOnLoopback, ServerTls
from aggregator.ingest.server import AgentSettings, IngestServer, ingest_server, serve_ingest

__all__ = [
    "AgentSettings",
    "IngestLimits",
    "IngestServer",
    "ListenerSecurity",
    "LoopbackPlaintext",
    "MutualTLS",
    "PlaintextOnLoopback",
    "ServerTls",
    "StaticToken",
    "ingest_server",
    "serve_ingest",
]
