"""What generation knows of one end of links, looked up once: links are many, ends are few.

Enters: a link end. Leaves: EndFacts, on which the rows of its two directions are gathered. Facts are compared by
identity: there is one for each end.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import assert_never

from aggregator.model.cluster import NAMESPACE_NAME_LABEL, ClusterSnapshot
from aggregator.model.decision import Decisions, GeneralRule, TypedCIDR
from aggregator.model.link import ObservedLink, end_key
from aggregator.model.proposal import IncludedLink, LeftOutLink, Reason
from aggregator.model.protocol import Direction
from aggregator.model.settings import Settings
from aggregator.model.workload import Address, ApiServer, LinkEnd, Nodes, Workload
from aggregator.policy.generation.dns import ClusterDNS
from aggregator.policy.generation.peers import Peers, Unit
from aggregator.policy.generation.ports import PortKey


@dataclass(slots=True, kw_only=True, eq=False)
class EndFacts:
    end: LinkEnd
    rank: int = 0
    namespace: str = ""
    on_host: bool = False
    subject: bool = False  # can a policy act on it?
    address: Address | None = None
    unwritable: Reason | None = None  # why it cannot stand in a rule
    nameable: bool = True  # may a rule of another namespace name its namespace?
    rules: dict[Direction, GeneralRule | None] = field(default_factory=dict)  # of the directions that are asked for
    typed: dict[Direction, tuple[TypedCIDR, ...]] = field(default_factory=dict)
    dns_ports: frozenset[PortKey] = frozenset()
    by_rows: bool = False  # a subject whose directions are both asked for and ruled by nothing but rows
    ingress: list["Judged"] = field(default_factory=list)
    egress: list["Judged"] = field(default_factory=list)
    units: dict[str, Unit | None] = field(default_factory=dict)  # "" = in other namespaces

    def rows(self, direction: Direction) -> list["Judged"]:
        return self.ingress if direction is Direction.INGRESS else self.egress


TEXTS: dict[Reason, str] = {
    Reason.OBSERVED: "seen, and both ends are known",
    Reason.DECIDED: "a person included it",
    Reason.EXTERNAL_ACCEPTED: "a person accepted every outside address seen",
    Reason.ALIAS_ALLOWED: "its alias is allowed",
    Reason.TYPED_CIDR: "a CIDR that a person typed covers it",
    Reason.PORT_RANGE: "a person accepted a range of ports that it is in",
    Reason.GENERAL_RULE: "a general rule allows it",
    Reason.DNS: "the cluster's DNS",
    Reason.EXCLUDED: "a person excluded it",
    Reason.UNRESOLVED: "nobody owns this address and nobody has named it: include it, or give it an alias",
    Reason.INTERNAL_UNRESOLVED: "an address of the cluster itself never becomes an ipBlock",
    Reason.ALIAS_NOT_ALLOWED: "its alias is not allowed: allow the alias, or include the row",
    Reason.LOOPBACK: "loopback and multicast never leave the pod as a connection that a policy could judge",
    Reason.FAILED_ATTEMPTS: "only failed attempts were seen, never a connection",
    Reason.LOW_CONFIDENCE: "which side is the server is a guess: include the row if it is right",
    Reason.SAME_NODE_PROBE: "a pod's own node always reaches it, no rule is needed",
    Reason.BLOCKED_EGRESS: "the client's general rule for egress does not allow it",
    Reason.BLOCKED_INGRESS: "the server's general rule for ingress does not allow it",
    Reason.SELECTOR_NOT_SEPARABLE: "no selector is exactly the pods of the other end",
    Reason.PEER_UNKNOWN: "the cluster does not show the other end, so no rule can name it",
    Reason.NAMESPACE_NOT_NAMEABLE: "the label lists exclude the label by which a rule names a namespace",
}


_OBSERVED_TEXT = TEXTS[Reason.OBSERVED]


@dataclass(slots=True, eq=False)  # not frozen, and positional: one is made for every link
class Judged:
    """A row with its judgement; `entry` is what a person is shown of it."""

    observed: ObservedLink
    src: EndFacts
    dst: EndFacts
    included: bool
    reason: Reason
    detail: str = ""
    entry: IncludedLink | LeftOutLink | None = None
    ports: frozenset[int] | None = None  # those of a link between two workloads that is not DNS: the same at both ends

    @property
    def text(self) -> str:
        if self.reason is Reason.OBSERVED:  # most are, and an enum's hash is dear
            return _OBSERVED_TEXT
        return f"{TEXTS[self.reason]} ({self.detail})" if self.detail else TEXTS[self.reason]

    def other(self, direction: Direction) -> EndFacts:
        """The far end, seen from the one whose direction this is."""
        return self.dst if direction is Direction.EGRESS else self.src


class Facts:
    """Makes EndFacts, one for each end."""

    def __init__(
        self, *, decisions: Decisions, settings: Settings, peers: Peers, dns: ClusterDNS, cluster: ClusterSnapshot
    ) -> None:
        self._decisions = decisions
        self._settings = settings
        self._peers = peers
        self._dns = dict(dns.servers)
        self._cluster = cluster
        self._known: dict[LinkEnd, EndFacts] = {}

    def of(self, end: LinkEnd) -> EndFacts:
        found = self._known.get(end)
        if found is None:
            found = self._known[end] = self._made(end)
        return found

    def of_rows(self, rows: Sequence[ObservedLink]) -> list[tuple[EndFacts, EndFacts]]:
        """Both ends of every row. By identity first: ends are often the same objects, and their hash is dear."""
        by_id: dict[int, EndFacts] = {}
        found: list[tuple[EndFacts, EndFacts]] = []
        for row in rows:
            src, dst = row.link.src, row.link.dst
            src_facts = by_id.get(id(src))
            if src_facts is None:
                src_facts = by_id[id(src)] = self.of(src)
            dst_facts = by_id.get(id(dst))
            if dst_facts is None:
                dst_facts = by_id[id(dst)] = self.of(dst)
            found.append((src_facts, dst_facts))
        return found

    def number(self) -> int:
        """Rank the ends by their canonical keys; how many there are."""
        for rank, facts in enumerate(sorted(self._known.values(), key=lambda facts: end_key(facts.end))):
            facts.rank = rank
        return len(self._known)

    def let_go(self) -> None:
        """Of the rows: rows and ends name each other, and hundreds of thousands would be left for the collector."""
        for facts in self._known.values():
            facts.ingress.clear()
            facts.egress.clear()

    def workloads(self) -> list[EndFacts]:
        """Those of workloads, by name."""
        found = [(end, facts) for end, facts in self._known.items() if isinstance(end, Workload)]
        return [facts for _, facts in sorted(found, key=lambda item: item[0])]

    def _made(self, end: LinkEnd) -> EndFacts:
        match end:
            case Workload():
                return self._of_workload(end)
            case Nodes():
                return EndFacts(end=end, unwritable=None if self._peers.nodes is not None else Reason.PEER_UNKNOWN)
            case ApiServer():
                found = self._peers.api_server
                return EndFacts(end=end, unwritable=None if found is not None else Reason.PEER_UNKNOWN)
            case Address():
                return EndFacts(end=end, address=end)
            case _:
                assert_never(end)

    def _of_workload(self, end: Workload) -> EndFacts:
        on_host = self._peers.on_host_network(end)
        subject = self._peers.selectable(end)
        unwritable = None
        if on_host:
            unwritable = None if self._peers.nodes is not None else Reason.PEER_UNKNOWN
        elif not subject:
            unwritable = Reason.SELECTOR_NOT_SEPARABLE if self._peers.known(end) else Reason.PEER_UNKNOWN
        ruled = self._decisions.rule_by_direction
        directions = self._settings.directions if subject else frozenset()
        rules = {direction: ruled.get((end, direction)) for direction in directions}
        typed = {direction: self._decisions.typed_cidrs_of(end, direction) for direction in Direction}
        dns_ports = self._dns.get(end, frozenset())
        nameable = on_host or self._decisions.labels.namespace_labels.permits(NAMESPACE_NAME_LABEL)
        return EndFacts(
            end=end,
            namespace=end.namespace,
            on_host=on_host,
            subject=subject,
            unwritable=unwritable,
            nameable=nameable,
            rules=rules,
            typed=typed,
            dns_ports=dns_ports,
            by_rows=len(rules) == 2
            and not any(rules.values())
            and not any(typed.values())
            and not dns_ports
            and nameable,
        )
