"""The wire: the only code that the agent and the aggregator share."""

__version__ = "0.1.0"
