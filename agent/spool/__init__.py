"""The spool: what was captured waits here until the aggregator has committed it."""

from agent.spool.queue import Pending, Spool, SpoolLimits

__all__ = ["Pending", "Spool", "SpoolLimits"]
