"""Event: something that a person should hear of once: a link that drifted, or that a policy denies although it lives.

Leaves services/keeping, is kept by store/events. Invariant: an Event's identity is what it is about (kind, subject,
episode, link), never when it was found: whoever finds it again, also after a restart, finds the same one.
"""

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from aggregator.model.link import Link, link_key


class EventKind(StrEnum):
    NEW_LINK = "new-link"  # seen, and not in the frozen baseline
    GONE_LINK = "gone-link"  # in the frozen baseline, and not seen for long
    WOULD_BE_DENIED = "would-be-denied"  # a policy on watch denies it
    NOT_ENFORCED = "not-enforced"  # opened although the applied policies deny it
    HELD_OPEN = "held-open"  # opened before the applied policies that deny it: gone with a restart


class Ended(StrEnum):
    """Why an event does not hold any more."""

    ACCEPTED = "accepted"  # a person took the link into the baseline, or the missing one out of it
    LEFT_OUT = "left-out"  # a person said that it does not belong
    SEEN_AGAIN = "seen-again"
    BASELINE_RELEASED = "baseline-released"  # the workload learns again
    NOT_SEEN_ANY_MORE = "not-seen-any-more"
    WATCH_ENDED = "watch-ended"
    POLICIES_CHANGED = "policies-changed"  # nothing applied denies it any more


@dataclass(frozen=True, slots=True, kw_only=True)
class EventEvidence:
    """What was seen, and by whom."""

    processes: tuple[str, ...] = ()
    src_pods: tuple[str, ...] = ()
    dst_pods: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    connections: int = 0
    first_seen: datetime | None = None
    last_seen: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """`subject` is the workload whose baseline it is ("namespace/Kind/name"), or the watch; `episode` tells one time of
    the same from the next: the decision that froze the baseline, the watch, the state of the policies.
    """

    kind: EventKind
    subject: str
    episode: str
    link: Link
    found_at: datetime
    text: str
    evidence: EventEvidence = EventEvidence()
    explanation: str = ""  # the policies' say, where policies are what it is about
    cause: str = ""  # the likely one, in words
    command: str = ""  # what a person may run
    ended: Ended | None = None
    ended_at: datetime | None = None

    @property
    def event_id(self) -> int:
        """BLAKE2b-64 of what it is about, as a signed number: the same for every writer."""
        about = json.dumps([self.kind.value, self.subject, self.episode, link_key(self.link)], ensure_ascii=True)
        return int.from_bytes(hashlib.blake2b(about.encode(), digest_size=8).digest(), "big", signed=True)
