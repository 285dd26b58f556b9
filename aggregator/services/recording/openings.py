"""Openings: which connections were opened, or found open, on links that a policy denies; handed to who judges them.

Enters: the rows of committed batches. Leaves: Opening values. Invariant: a link that nothing denies costs one look-up
in an array, not an object; what is kept is bounded, and what is left out is counted. Shared by two threads.
"""

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aggregator.metrics import OPENINGS_LEFT_OUT
from aggregator.model.link import Confidence, Link
from aggregator.model.protocol import Protocol
from aggregator.services.recording.deliveries import I64
from aggregator.services.recording.identities import Answer

MOST = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """`opened_ms`: no connection counted was opened before; None: it was found open. `seen_ms`: none was after."""

    link: Link
    answer: Answer
    opened_ms: int | None
    seen_ms: int


class Openings:
    """One a recorder. Until `listen` nothing is kept."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listening: set[str] = set()
        self._quiet = np.zeros(0, bool)
        self._links: list[Link] = []
        self._slots: dict[Link, int] = {}
        self._kept: dict[tuple[object, ...], Opening] = {}

    # ---- who judges -------------------------------------------------------------------------------------------------

    def listen(self, cluster: str, *, listening: bool) -> None:
        with self._lock:
            if listening:
                self._listening.add(cluster)
            else:
                self._listening.discard(cluster)
                self._kept = {key: kept for key, kept in self._kept.items() if kept.link.src.cluster != cluster}

    def take(self, cluster: str) -> list[Opening]:
        with self._lock:
            taken = {key: kept for key, kept in self._kept.items() if kept.link.src.cluster == cluster}
            for key in taken:
                del self._kept[key]
            return list(taken.values())

    def links(self) -> Sequence[Link]:
        """Every link that was seen, of any cluster; it only grows."""
        with self._lock:
            return self._links[:]

    def judged(self, links: Iterable[Link], *, quiet: bool) -> None:
        """Nothing more is kept of those that are quiet. A link that was never judged is not."""
        with self._lock:
            for link in links:
                self._quiet[self._slots[link]] = quiet

    # ---- who records ------------------------------------------------------------------------------------------------

    def know(self, links: Iterable[Link]) -> None:
        """Links get their slots in the order in which the recorder meets them."""
        with self._lock:
            for link in links:
                self._slots[link] = len(self._links)
                self._links.append(link)
            self._quiet = np.concatenate([self._quiet, np.zeros(len(self._links) - len(self._quiet), bool)])

    def note(
        self, answers: Sequence[Answer], rows: I64, slots: I64, found_open: npt.NDArray[np.bool_], times: I64
    ) -> None:
        """`times` are (first, last) of each row; rows of attempts and of clamped batches are left out before."""
        with self._lock:
            if not self._listening:
                return
            for index in np.flatnonzero(~self._quiet[slots]).tolist():
                self._keep(
                    answers[int(rows[index])],
                    self._links[int(slots[index])],
                    opened_ms=None if found_open[index] else int(times[index, 0]),
                    seen_ms=int(times[index, 1]),
                )

    def _keep(self, answer: Answer, link: Link, *, opened_ms: int | None, seen_ms: int) -> None:
        identity = answer.identity
        if link.src.cluster not in self._listening:
            return
        if identity.protocol is not Protocol.TCP or identity.confidence is not Confidence.HIGH:
            return  # a datagram may belong to a conversation that is older than its policy
        key = (
            identity.node,
            identity.pod_uid,
            identity.remote_ip,
            identity.port,
            identity.direction,
            opened_ms is None,
        )
        before = self._kept.get(key)
        if before is None and len(self._kept) >= MOST:
            OPENINGS_LEFT_OUT.inc()
            return
        if before is not None and (before.opened_ms or 0) > (opened_ms or 0):
            return  # the later opening says more
        self._kept[key] = Opening(link=link, answer=answer, opened_ms=opened_ms, seen_ms=seen_ms)
