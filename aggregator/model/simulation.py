"""Simulation: what stored history would have met under other policies; and the Plan by which policies are applied.

Leaves policy.simulate and policy.order. UNKNOWN is never folded into allowed (NP-64).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from aggregator.model.link import Link, ObservedLink
from aggregator.model.networkpolicy import NetworkPolicy
from aggregator.model.verdict import Verdict
from aggregator.model.workload import Workload


class Bucket(StrEnum):
    WOULD_BE_CUT = "would-be-cut"
    NEWLY_ALLOWED = "newly-allowed"
    UNCHANGED = "unchanged"
    UNKNOWN = "unknown"


class Candidate(StrEnum):
    """The two sets of policies that the applied ones are compared to."""

    APPLIED_AND_PROPOSED = "applied-and-proposed"
    PROPOSED_ONLY = "proposed-only"


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """One link of history. `weight` falls with the age of the last sighting and grows with the count."""

    observed: ObservedLink
    now: Verdict
    then: Verdict
    bucket: Bucket
    weight: float
    example: str  # the first pair of pods that shows it
    because: str
    synthetic: bool = False  # DNS and the API server, tried although nobody was seen asking


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """Replays by candidate, heaviest first."""

    replays: Mapping[Candidate, tuple[Replay, ...]]
    profile: str

    def of(self, candidate: Candidate, bucket: Bucket) -> tuple[Replay, ...]:
        return tuple(replay for replay in self.replays[candidate] if replay.bucket is bucket)

    def counts(self, candidate: Candidate) -> Mapping[Bucket, int]:
        return {bucket: len(self.of(candidate, bucket)) for bucket in Bucket}


class Action(StrEnum):
    APPLY = "apply"
    DELETE = "delete"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One object applied or deleted. `temporary` ones hold a workload open while its parts arrive."""

    action: Action
    policy: NetworkPolicy
    temporary: bool = False
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartAdvice:
    """A workload whose connections may be older than its policies: policies need not cut those (NP-33)."""

    workload: Workload
    links: tuple[Link, ...]
    command: str  # "" where the kind cannot be restarted by one
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    steps: tuple[Step, ...]
    restarts: tuple[RestartAdvice, ...] = ()
