"""Scope and Span: which part of a cluster, and which time, a question is about."""

from dataclasses import dataclass
from datetime import datetime

from aggregator.model.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """From `since` to before `until`, timezone-aware UTC; None = as far as anything is recorded."""

    since: datetime | None = None
    until: datetime | None = None


ALL_RECORDED = Span()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Links with an end in it: the cluster, one namespace, or some workloads of it (a Service has several)."""

    cluster: str
    namespace: str = ""  # "" = every namespace
    workloads: tuple[Workload, ...] = ()  # () = every workload
