"""The order in which proposals may be applied, so that no step cuts what the whole allows.

Enters: a Generation and what a person removes. Leaves: a Plan. Invariant: after every step, every included link is
allowed: a policy brings all of its rules at once, a split one is held open until its parts are there, old policies go
after the new ones, default-denies come last.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import assert_never

from aggregator.model.cluster import ClusterSnapshot
from aggregator.model.decision import Decisions
from aggregator.model.link import Link, ObservedLink
from aggregator.model.networkpolicy import NetworkPolicy, Rule
from aggregator.model.proposal import Generation, IncludedLink, Proposal
from aggregator.model.protocol import Direction, Protocol
from aggregator.model.simulation import Action, Plan, RestartAdvice, Step
from aggregator.model.workload import Workload
from aggregator.policy.enforcement import restart_command

LONG_LIVED_SECONDS = 3600
FEW_CONNECTIONS = 2


def plan(generation: Generation, cluster: ClusterSnapshot, decisions: Decisions | None = None) -> Plan:
    """Smallest blast radius first: the workload with the fewest links, then by name."""
    steps: list[Step] = []
    for proposal in sorted(generation.proposals, key=lambda p: (len(p.included), p.workload)):
        steps += _applied(proposal)
    removed = set((decisions or Decisions()).removed_policies)
    steps += [
        Step(action=Action.DELETE, policy=policy, text="a person removes it; the proposals replace it")
        for policy in cluster.policies
        if (policy.namespace, policy.name) in removed
    ]
    steps += [Step(action=Action.APPLY, policy=policy, text="last of all") for policy in generation.default_denies]
    return Plan(steps=tuple(steps), restarts=tuple(_restarts(generation.proposals)))


def after(steps: Iterable[Step], applied: Iterable[NetworkPolicy]) -> Iterator[tuple[Step, tuple[NetworkPolicy, ...]]]:
    """What is in force after each step."""
    current = {(policy.namespace, policy.name): policy for policy in applied}
    for step in steps:
        key = (step.policy.namespace, step.policy.name)
        match step.action:
            case Action.APPLY:
                current[key] = step.policy
            case Action.DELETE:
                current.pop(key, None)
            case _:
                assert_never(step.action)
        yield step, tuple(current.values())


def _applied(proposal: Proposal) -> Iterator[Step]:
    """One object is applied at once; parts arrive one by one, so the workload is held open meanwhile."""
    if len(proposal.policies) == 1:
        yield Step(action=Action.APPLY, policy=proposal.policies[0], text=f"{proposal.workload}")
        return
    first = proposal.policies[0]
    types = first.policy_types or ()
    opener = replace(
        first,
        name=f"{first.name.rpartition('-')[0]}-opener",
        ingress=(Rule(),) if Direction.INGRESS in types else (),
        egress=(Rule(),) if Direction.EGRESS in types else (),
    )
    text = f"{proposal.workload}: holds it open until all of its parts are there"
    yield Step(action=Action.APPLY, policy=opener, temporary=True, text=text)
    for policy in proposal.policies:
        yield Step(action=Action.APPLY, policy=policy, text=f"{proposal.workload}, one part")
    yield Step(action=Action.DELETE, policy=opener, temporary=True, text=f"{proposal.workload}: all parts are there")


def _restarts(proposals: Iterable[Proposal]) -> Iterator[RestartAdvice]:
    """Clients that keep connections open: a mistake would show only when they connect anew."""
    held: dict[Workload, dict[Link, None]] = {}
    for proposal in proposals:
        rows: Iterable[IncludedLink] = proposal.included
        for row in rows:
            link = row.observed.link
            if isinstance(link.src, Workload) and link.protocol is Protocol.TCP and is_long_lived(row.observed):
                held.setdefault(link.src, {})[link] = None
    for workload in sorted(held):
        command = restart_command(workload)
        yield RestartAdvice(
            workload=workload,
            links=tuple(held[workload]),
            command=command,
            text=f"{workload} keeps connections open that were made before the policies: whether they would be made "
            "again shows only after a restart",
        )


def is_long_lived(row: ObservedLink) -> bool:
    """Few connections over a long time, or none made while watching: they have been open all along."""
    evidence = row.evidence
    if not row.established:
        return False
    if evidence.connections == 0:
        return True
    if evidence.first_seen is None or evidence.last_seen is None:
        return False
    lasted = (evidence.last_seen - evidence.first_seen).total_seconds()
    return evidence.connections <= FEW_CONNECTIONS and lasted >= LONG_LIVED_SECONDS
