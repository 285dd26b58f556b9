"""Sight: the part of a cluster that one caller may see.

Enters: a Caller, a snapshot, observed links. Leaves: the same, without what the caller may not see. Invariant: whatever
is computed from a restricted snapshot and restricted links cannot tell what was taken out, so nothing else needs
masking: tables show a row whose other end is hidden as masked, proposals and verdicts are made without it.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property

from aggregator.model.adminpolicy import ForeignPolicy
from aggregator.model.cluster import ClusterSnapshot
from aggregator.model.decision import Decisions
from aggregator.model.declared import DeclaredCaller
from aggregator.model.link import Link, ObservedLink
from aggregator.model.workload import LinkEnd, Workload
from aggregator.policy.generation.dns import find_dns
from aggregator.policy.generation.peers import API_SERVER_SERVICE
from aggregator.services.authority.caller import EVERY_NAMESPACE, Caller


@dataclass(frozen=True, kw_only=True)
class Sight:
    """What `caller` sees of `whole`."""

    caller: Caller
    whole: ClusterSnapshot
    key: bytes = field(default=b"", repr=False)  # of the installation: makes ids of masked rows unguessable

    @cached_property
    def everything(self) -> bool:
        return self.caller.sees(EVERY_NAMESPACE)

    def namespace(self, name: str) -> bool:
        return self.everything or self._answer(name)

    @cached_property
    def _answers(self) -> dict[str, bool]:
        return {}

    def _answer(self, name: str) -> bool:
        if name not in self._answers:
            self._answers[name] = self.caller.sees(name)
        return self._answers[name]

    def end(self, end: LinkEnd) -> bool:
        """Nodes, the API server and addresses belong to no namespace: who sees the other end sees them."""
        return not isinstance(end, Workload) or self.namespace(end.namespace)

    def link(self, link: Link) -> bool:
        return self.end(link.src) and self.end(link.dst)

    def rows(self, rows: Iterable[ObservedLink]) -> tuple[list[ObservedLink], list[ObservedLink]]:
        """(those whose both ends are seen, those of which one is hidden); rows hidden at both ends are in neither."""
        clear: list[ObservedLink] = []
        masked: list[ObservedLink] = []
        for row in rows:
            seen = (self.end(row.link.src), self.end(row.link.dst))
            if all(seen):
                clear.append(row)
            elif any(seen) and isinstance(row.link.src if seen[0] else row.link.dst, Workload):
                masked.append(row)
        return clear, masked

    @cached_property
    def cluster(self) -> ClusterSnapshot:
        """The snapshot without hidden namespaces. Cluster DNS and the API server's Service are for everybody."""
        if self.everything:
            return self.whole
        whole = self.whole
        shown = {n.name for n in whole.namespaces if self.namespace(n.name)}
        shown |= {r.workload.namespace for r in whole.workloads if self.namespace(r.workload.namespace)}
        shown |= {p.namespace for p in whole.pods if self.namespace(p.namespace)}
        dns = {server for server, _ in find_dns(whole).servers}
        dns_namespaces = {server.namespace for server in dns}
        dns_pods = {(p.namespace, p.name) for p in whole.pods if p.workload in dns}
        return replace(
            whole,
            namespaces=tuple(n for n in whole.namespaces if n.name in shown or n.name in dns_namespaces),
            pods=tuple(p for p in whole.pods if p.namespace in shown or (p.namespace, p.name) in dns_pods),
            services=tuple(
                s
                for s in whole.services
                if s.namespace in shown
                or (s.namespace, s.name) == API_SERVER_SERVICE
                or any((s.namespace, b.pod) in dns_pods for b in s.backends)
            ),
            workloads=tuple(r for r in whole.workloads if r.workload.namespace in shown or r.workload in dns),
            policies=tuple(p for p in whole.policies if p.namespace in shown),
            declared_callers=tuple(
                d for d in whole.declared_callers if isinstance(d, DeclaredCaller) and d.namespace in shown
            ),
            extra_policies=tuple(
                p for p in whole.extra_policies if not isinstance(p, ForeignPolicy) or p.namespace in {"", *shown}
            ),
        )

    def decisions(self, decisions: Decisions) -> Decisions:
        """Those about what the caller sees, and those of the whole cluster."""
        if self.everything:
            return decisions
        return replace(
            decisions,
            links=tuple((link, choice) for link, choice in decisions.links if self.link(link)),
            directions=tuple(said for said in decisions.directions if self.namespace(said[0].namespace)),
            typed_cidrs=tuple(typed for typed in decisions.typed_cidrs if self.namespace(typed.workload.namespace)),
            default_denies=tuple(said for said in decisions.default_denies if self.namespace(said[0])),
            port_ranges=tuple(c for c in decisions.port_ranges if self.end(c.src) and self.end(c.dst)),
            frozen_baselines=tuple(said for said in decisions.frozen_baselines if self.namespace(said[0].namespace)),
            removed_policies=tuple(said for said in decisions.removed_policies if self.namespace(said[0])),
        )

    def named(self, masked: Iterable[ObservedLink]) -> list[tuple[str, ObservedLink]]:
        """Masked rows with their ids; order and ids come from what the caller's own end saw, and from nothing else."""
        counted: dict[tuple[str, ...], int] = {}
        found = []
        for row in sorted(masked, key=self._own_side):
            kept = self._own_side(row)[:4]
            counted[kept] = counted.get(kept, 0) + 1
            text = " ".join((*kept, str(counted[kept])))
            digest = hashlib.blake2b(text.encode(), digest_size=8, key=self.key[:64]).digest()
            found.append((str(int.from_bytes(digest, "big", signed=True)), row))
        return found

    def _own_side(self, row: ObservedLink) -> tuple[str, ...]:
        link, seen = row.link, row.evidence
        outward = self.end(link.src)
        own, pods = (link.src, seen.src_pods) if outward else (link.dst, seen.dst_pods)
        place = (str(own), "egress" if outward else "ingress", link.protocol.value, str(link.port))
        counts = (f"{n:020d}" for n in (seen.connections, seen.tx_bytes, seen.rx_bytes, seen.failed_attempts))
        return (*place, *counts, str(seen.first_seen), str(seen.last_seen), str(row.established), *pods)
