"""The store: links, activity, agents and the cluster's past, in PostgreSQL or SQLite, through SQLAlchemy."""

from aggregator.store.links import ActivityPoint, Scope, Span
from aggregator.store.migrate import migrate
from aggregator.store.retention import Retention
from aggregator.store.sink import Cloned, CursorOpening, Opened, Sink
from aggregator.store.store import Store, open_store

__all__ = [
    "ActivityPoint",
    "Cloned",
    "CursorOpening",
    "Opened",
    "Retention",
    "Scope",
    "Sink",
    "Span",
    "Store",
    "migrate",
    "open_store",
]
