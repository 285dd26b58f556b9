"""Stored history against other policies: what would be cut, what newly allowed, what nobody can tell.

Enters: observed links, the applied policies, the proposed ones, the time of the question. Leaves: a Simulation.
Invariant: every link falls into one bucket for each candidate; UNKNOWN before or after is UNKNOWN (NP-64).
"""

from collections.abc import Iterable, Sequence
from datetime import datetime

from aggregator.model.adminpolicy import AdminPolicy, ForeignPolicy, Policy
from aggregator.model.cluster import ClusterSnapshot
from aggregator.model.link import Evidence, Link, ObservedLink
from aggregator.model.networkpolicy import NetworkPolicy
from aggregator.model.simulation import Bucket, Candidate, Replay, Simulation
from aggregator.model.verdict import Verdict
from aggregator.model.workload import ApiServer, Workload
from aggregator.policy.evaluation.judging import Judge, example, words
from aggregator.policy.evaluation.live import Live, connect
from aggregator.policy.evaluation.opened import is_exempt
from aggregator.policy.generation.dns import find_dns
from aggregator.policy.profiles.known import GENERIC
from aggregator.policy.profiles.profile import Profile

HALF_LIFE_SECONDS = 7 * 24 * 3600.0  # a link last seen a week ago weighs half of one seen now


def simulate(
    history: Iterable[ObservedLink],
    proposed: Sequence[NetworkPolicy],
    cluster: ClusterSnapshot,
    *,
    now: datetime,
    removed: Iterable[tuple[str, str]] = (),
    profile: Profile = GENERIC,
) -> Simulation:
    """Every link of `history` and, besides, DNS and the API server, under the applied and the proposed policies."""
    replaced = {(policy.namespace, policy.name) for policy in proposed} | set(removed)
    others = tuple(policy for policy in cluster.extra_policies if isinstance(policy, AdminPolicy | ForeignPolicy))
    remaining = tuple(policy for policy in cluster.policies if (policy.namespace, policy.name) not in replaced)
    live = Live(cluster, (*cluster.policies, *proposed))
    before = Judge((*cluster.policies, *others), cluster, profile)
    sets: dict[Candidate, tuple[Policy, ...]] = {
        Candidate.APPLIED_AND_PROPOSED: (*remaining, *proposed, *others),
        Candidate.PROPOSED_ONLY: tuple(proposed),
    }
    judges = {candidate: Judge(policies, cluster, profile) for candidate, policies in sets.items()}
    rows = [(row, False) for row in history]
    rows += [(row, True) for row in _synthetic(cluster, proposed, {row.link for row, _ in rows})]
    replays: dict[Candidate, tuple[Replay, ...]] = {}
    for candidate, judge in judges.items():
        found = [_replay(row, live, before, judge, now=now, synthetic=synthetic) for row, synthetic in rows]
        replays[candidate] = tuple(sorted(found, key=lambda replay: (-replay.weight, replay.observed.link.sort_key())))
    return Simulation(replays=replays, profile=profile.name)


def weight(evidence: Evidence, now: datetime) -> float:
    """The count, halved for every week since the last sighting."""
    count = max(evidence.connections, 1)
    if evidence.last_seen is None:
        return float(count)
    age_seconds = max((now - evidence.last_seen).total_seconds(), 0.0)
    return float(count * 0.5 ** (age_seconds / HALF_LIFE_SECONDS))


def _replay(row: ObservedLink, live: Live, before: Judge, judge: Judge, *, now: datetime, synthetic: bool) -> Replay:
    """The link's worst pair: one that would be cut counts more than any that would not."""
    link = row.link
    probe = row.evidence.same_node_probe
    worst: tuple[int, Verdict, Verdict, Bucket, str, str] | None = None
    for src in () if probe else live.endpoints(link.src):
        for dst in live.endpoints(link.dst):
            for protocol, port in live.ports_of(link.dst, link.protocol, link.port):
                connection = connect(src, dst, protocol, port)
                then = judge.explain(connection)
                if is_exempt(then):
                    continue
                was = before.explain(connection)
                bucket = _bucket(was.verdict, then.verdict)
                rank = _RANK[bucket]
                if worst is None or rank < worst[0]:
                    worst = (rank, was.verdict, then.verdict, bucket, example(connection), words(then))
    heavy = weight(row.evidence, now)
    if worst is None:
        alive = live.endpoints(link.src) and live.endpoints(link.dst)
        verdict = Verdict.ALLOWED if alive else Verdict.UNKNOWN
        because = "no policy has a say" if alive else "the cluster shows nobody at one of its ends"
        if alive and probe:
            because = "a pod's own node always reaches it"
        return Replay(
            observed=row,
            now=verdict,
            then=verdict,
            bucket=_bucket(verdict, verdict),
            weight=heavy,
            example="",
            because=because,
            synthetic=synthetic,
        )
    _, now_verdict, then_verdict, bucket, shown, because = worst
    return Replay(
        observed=row,
        now=now_verdict,
        then=then_verdict,
        bucket=bucket,
        weight=heavy,
        example=shown,
        because=because,
        synthetic=synthetic,
    )


_RANK = {Bucket.WOULD_BE_CUT: 0, Bucket.UNKNOWN: 1, Bucket.NEWLY_ALLOWED: 2, Bucket.UNCHANGED: 3}


def _bucket(now: Verdict, then: Verdict) -> Bucket:
    if Verdict.UNKNOWN in {now, then}:
        return Bucket.UNKNOWN
    if now is then:
        return Bucket.UNCHANGED
    return Bucket.WOULD_BE_CUT if then is Verdict.DENIED else Bucket.NEWLY_ALLOWED


def _synthetic(cluster: ClusterSnapshot, proposed: Sequence[NetworkPolicy], seen: set[Link]) -> list[ObservedLink]:
    """DNS of every workload that a proposed policy selects, and the API server for those that were seen asking it."""
    touched = sorted(
        workload
        for workload, pods in cluster.pods_by_workload.items()
        if any(p.namespace == workload.namespace and p.pod_selector.matches(dict(pods[0].labels)) for p in proposed)
    )
    links: list[Link] = []
    servers = find_dns(cluster).servers
    for workload in touched:
        for server, ports in servers:
            links += [Link(src=workload, dst=server, protocol=p, port=port) for p, port in sorted(ports)]
    asked = {link.src for link in seen if isinstance(link.dst, ApiServer) and isinstance(link.src, Workload)}
    backends = [s.backends[0] for s in cluster.services if str(s) == "default/kubernetes" and s.backends]
    for source in sorted(asked & set(touched)):
        links += [
            Link(src=source, dst=ApiServer(cluster=cluster.name), protocol=b.protocol, port=b.port) for b in backends
        ]
    return [ObservedLink(link=link, evidence=Evidence()) for link in dict.fromkeys(links) if link not in seen]
