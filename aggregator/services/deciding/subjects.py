"""What a decision is about: which workloads, namespaces or the whole cluster; and in words.

Enters: a Decision. Leaves: its Subjects and its text. Invariant: who may not see every subject of a decision does not
see the decision; records and tags are keyed hashes, so that they tell nobody how much else was decided.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

from aggregator.model.decision import (
    AliasDecision,
    BaselineDecision,
    Choice,
    ClusterCIDRs,
    Decision,
    DefaultDeny,
    DirectionDecision,
    LabelDecision,
    LinkDecision,
    PolicyRemoval,
    PortRangeConsent,
    ProcessNames,
    TypedCIDRDecision,
)
from aggregator.model.link import Link
from aggregator.model.workload import LinkEnd, Workload
from aggregator.services.authority.caller import Resource
from aggregator.services.authority.sight import Sight
from aggregator.store.decisions import DecisionState, Undo


@dataclass(frozen=True, slots=True, kw_only=True)
class Subjects:
    """`workloads` and `namespaces` are empty for what holds for the whole cluster."""

    kind: str
    text: str
    resource: Resource
    workloads: tuple[Workload, ...] = ()
    namespaces: tuple[str, ...] = ()
    link: Link | None = None

    def seen_by(self, sight: Sight) -> bool:
        return all(sight.namespace(name) for name in self.all_namespaces)

    @property
    def all_namespaces(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.namespaces, *(workload.namespace for workload in self.workloads))))

    @property
    def cluster_wide(self) -> bool:
        return not self.all_namespaces


_CHOICES = {Choice.INCLUDE: "include", Choice.EXCLUDE: "leave out", None: "take back what was said of"}


def subjects_of(decision: Decision) -> Subjects:  # noqa: C901, PLR0911  # one for each kind
    match decision:
        case LinkDecision(link=link, choice=choice):
            return Subjects(
                kind="link",
                text=f"{_CHOICES[choice]} {link}",
                resource=Resource.DECISIONS,
                workloads=_workloads(link.src, link.dst),
                link=link,
            )
        case DirectionDecision(workload=workload, direction=direction, rule=rule):
            said = rule.value if rule else "nothing any more"
            text = f"the general rule for {direction.value.lower()} of {workload} is {said}"
            return Subjects(kind="direction", text=text, resource=Resource.DECISIONS, workloads=(workload,))
        case TypedCIDRDecision(cidr=typed, choice=choice):
            ports = "" if typed.port is None else f" {typed.port}" + (f"-{typed.end_port}" if typed.end_port else "")
            protocol = typed.protocol.value if typed.protocol else "everything"
            where = f"{typed.direction.value.lower()} of {typed.workload}"
            text = f"{_CHOICES[choice]} {typed.cidr} {protocol}{ports}, {where}"
            return Subjects(kind="cidr", text=text, resource=Resource.DECISIONS, workloads=(typed.workload,))
        case AliasDecision(name=name, alias=alias):
            what = "removed" if alias is None else f"{', '.join(map(str, (*alias.networks, *alias.domains)))}"
            allowed = ", allowed" if alias is not None and alias.allowed else ""
            return Subjects(kind="alias", text=f"the alias {name}: {what}{allowed}", resource=Resource.ADDRESSES)
        case LabelDecision():
            return Subjects(kind="labels", text="the label lists", resource=Resource.SETTINGS)
        case ClusterCIDRs():
            text = f"the cluster's CIDRs: {', '.join(map(str, decision.all)) or 'as discovered'}"
            return Subjects(kind="cluster-cidrs", text=text, resource=Resource.SETTINGS)
        case ProcessNames(names=names):
            text = f"processes whose arguments tell CIDRs: {', '.join(names) or 'the usual ones'}"
            return Subjects(kind="process-names", text=text, resource=Resource.SETTINGS)
        case DefaultDeny(namespace=namespace, direction=direction, choice=choice):
            text = f"{_CHOICES[choice]} a default deny of {direction.value.lower()} in {namespace}"
            return Subjects(kind="default-deny", text=text, resource=Resource.DECISIONS, namespaces=(namespace,))
        case PortRangeConsent(src=src, dst=dst):
            text = f"{_CHOICES[decision.choice]} ports {decision.first}-{decision.last} of {src} -> {dst}"
            return Subjects(kind="port-range", text=text, resource=Resource.DECISIONS, workloads=_workloads(src, dst))
        case PolicyRemoval(namespace=namespace, name=name, choice=choice):
            text = f"{_CHOICES[choice]} the removal of the policy {namespace}/{name}"
            return Subjects(kind="policy-removal", text=text, resource=Resource.DECISIONS, namespaces=(namespace,))
        case BaselineDecision(workload=workload, links=links):
            said = "learns again" if links is None else f"is frozen at {len(links)} links"
            text = f"the baseline of {workload} {said}"
            return Subjects(kind="baseline", text=text, resource=Resource.BASELINES, workloads=(workload,))
        case _:
            assert_never(decision)


def _workloads(*ends: LinkEnd) -> tuple[Workload, ...]:
    return tuple(end for end in ends if isinstance(end, Workload))


def subjects_of_version(state: DecisionState, version: int) -> Subjects:
    """Of an entry; an undo is about what it takes back."""
    said = state.by_version[version].entry.said
    while isinstance(said, Undo):
        said = state.by_version[said.version].entry.said
    return subjects_of(said)


def record_of(sight: Sight, version: int) -> str:
    """The name of an entry for callers."""
    return _hash(sight.key, f"record {version}")


def etag_of(sight: Sight, state: DecisionState, scope: str, about: Callable[[Subjects], bool]) -> str:
    """Changes with every entry that the caller sees and that is `about` the scope."""
    found = (subjects_of_version(state, logged.version) for logged in state.log)
    count = sum(about(subjects) and subjects.seen_by(sight) for subjects in found)
    return _hash(sight.key, f"tag {scope} {count}")


def _hash(key: bytes, text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=12, key=key[:64]).hexdigest()
