"""What a sighting says about enforcement: was a connection opened that the applied policies deny, or is one still open?

Enters: when it was opened and seen, and since when its verdict is what it is. Leaves: a Say. Invariant: NOT_ENFORCED
is only said of connections that were opened while they were denied: not before the policies were there, not after they
were gone, whatever the clocks and the plug-in's lag within MARGIN. The opposite is never said: "enforced" only ever
means that no violation was seen.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import assert_never

from aggregator.model.networkpolicy import IPBlock, NetworkPolicy
from aggregator.model.protocol import Protocol
from aggregator.model.verdict import Verdict
from aggregator.model.workload import Workload

MARGIN = timedelta(seconds=30)
"""What a node's clock may be off, its plug-in may lag behind the API server, and the view behind both, together."""


class Say(Enum):
    NOTHING = "nothing"  # allowed; or denied, and too early or too late to say anything
    WAIT = "wait"  # what happened until then is not known yet
    UNKNOWN = "unknown"  # the verdict is
    NOT_ENFORCED = "not-enforced"
    HELD_OPEN = "held-open"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """`opened`: of the connections counted, none was opened before it; None where none was opened, one only found
    open. `seen`: none was opened after it.
    """

    opened: datetime | None
    seen: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictNow:
    """`since`: nothing that it rests on has changed after that. `confirmed`: everything until then was taken in."""

    verdict: Verdict
    since: datetime
    confirmed: datetime


def say(sighting: Sighting, now: VerdictNow) -> Say:
    match now.verdict:
        case Verdict.ALLOWED:
            return Say.NOTHING
        case Verdict.UNKNOWN:
            return Say.UNKNOWN
        case Verdict.DENIED:
            pass
        case _:
            assert_never(now.verdict)
    if sighting.opened is None:
        return Say.HELD_OPEN
    if now.confirmed < sighting.seen + MARGIN:
        return Say.WAIT
    return Say.NOT_ENFORCED if sighting.opened >= now.since + MARGIN else Say.NOTHING


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """What a likely cause is told from. `enforces` None: no plug-in that could was recognised."""

    plugin: str
    enforces: bool | None
    why_not: str
    node: str  # where the denying side lives
    other_violating_nodes: Collection[str]
    nodes: int  # that report
    deciding: Sequence[NetworkPolicy]


def likely_cause(found: Circumstances) -> str:
    """In words, the most telling first."""
    if found.enforces is None:
        return "no network plug-in that enforces policies was recognised in this cluster"
    if not found.enforces:
        return f"policies are not enforced here: {found.why_not}"
    features = sorted({feature for policy in found.deciding for feature in _features(policy)})
    if features:
        return f"the deciding policy uses {', '.join(features)}: a release of {found.plugin} without that ignores it"
    if found.nodes > 1 and not found.other_violating_nodes:
        return f"only the node {found.node} lets it through: {found.plugin} has stopped there, or lags behind"
    return f"{found.plugin} has stopped, or its policy feature is switched off"


def _features(policy: NetworkPolicy) -> Collection[str]:
    found = set()
    for rule in (*policy.ingress, *policy.egress):
        for port in rule.ports:
            if port.end_port is not None:
                found.add("endPort")
            if port.protocol is Protocol.SCTP:
                found.add("SCTP")
        if any(isinstance(peer, IPBlock) and peer.excepts for peer in rule.peers):
            found.add("ipBlock.except")
    return found


_RESTARTABLE = frozenset({"Deployment", "StatefulSet", "DaemonSet"})


def restart_command(workload: Workload) -> str:
    """Empty where the kind cannot be restarted by one."""
    if workload.kind not in _RESTARTABLE:
        return ""
    return f"kubectl -n {workload.namespace} rollout restart {workload.kind.lower()}/{workload.name}"
