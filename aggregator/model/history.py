"""Episodes: what the cluster view remembers of the past, in a form that a store can keep.

Leaves cluster/ as `Episode` values, comes back from the store at start, so that a restarted aggregator still resolves
yesterday's addresses. Invariant: an Episode is written whole and replaced whole by its key; only cluster/ reads `body`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """One thing that was so from `began` to `ended` (timezone-aware UTC).

    `kind` is a short stable word ("pod", "node", "service", "labels"), `key` is unique within the cluster, `body` is
    canonical JSON. `ended` None = still so when it was written.
    """

    cluster: str
    kind: str
    key: str
    began: datetime
    ended: datetime | None = None
    body: str = "{}"


class EpisodeStore(Protocol):
    """Implemented by store/, wired by app. Blocking: callers on an event loop use a thread."""

    def save_episodes(self, episodes: Sequence[Episode]) -> None:
        """Insert each, or replace the one with the same (cluster, key)."""
        ...

    def load_episodes(self, cluster: str, *, since: datetime) -> Sequence[Episode]:
        """Those of the cluster that have not ended, or ended at `since` or later, in any order."""
        ...

    def forget_episodes(self, *, ended_before: datetime) -> int:
        """Remove those that ended before; how many."""
        ...
