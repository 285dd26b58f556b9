"""Resolution: from what an agent saw (a pod, an address, a time) to a Link, never a guess."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol as TypingProtocol

from aggregator.model.address import IPAddress
from aggregator.model.link import Confidence, Link, Outcome
from aggregator.model.protocol import Direction, Protocol

# Reasons of NotYet that others ask for.
ADDRESS_CHANGED_HANDS = "address-changed-hands"  # within the time that clocks and watches may be off
ADDRESS_LET_GO = "address-let-go"  # a pod had it, and nobody has it any more, or not yet
NOBODY_IN_POD_RANGE = "nobody-known-in-pod-range"
SERVICE_BACKENDS_DIFFER = "service-backends-differ"
SERVICE_WITHOUT_BACKENDS = "service-without-backends"


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowIdentity:
    """A flow as an agent reported it. `port` is the server's: the remote's for EGRESS, the local one for INGRESS."""

    cluster: str
    node: str  # the reporting agent's node
    pod_uid: str  # "" = the node could not name it
    pod_namespace: str = ""  # from the kubelet's log folders, "" when unknown
    pod_name: str = ""
    host_network: bool = False
    local_ip: IPAddress | None = None
    remote_ip: IPAddress
    port: int
    protocol: Protocol
    direction: Direction
    outcome: Outcome = Outcome.ESTABLISHED
    confidence: Confidence = Confidence.HIGH


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """The Link, and what was on the way. `service` = "namespace/name:port" when a Service address was used."""

    link: Link
    service: str = ""
    src_pod: str = ""  # "namespace/name", "" when that end is no single pod
    dst_pod: str = ""
    same_node_probe: bool = False
    holds_since: datetime | None = None  # between these bounds, not at them, the same identity has the same answer;
    holds_until: datetime | None = None  # None = as far back, or on, as is known


@dataclass(frozen=True, slots=True, kw_only=True)
class NotYet:
    """The cluster view has not caught up: keep the flow and ask again within the grace period.

    `fallback` is what it becomes when the grace period ends: the Link under its raw address, or None where even the
    local pod stays unknown (then it is counted, and no Link). `behind`: the view has not got as far as the flow,
    because the API server is away, for one; the grace period is not for that.
    """

    reason: str
    fallback: Link | None
    behind: bool = False
    holds_since: datetime | None = None  # as for Resolved


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """This row must not be recorded: e.g. its pod is known to live on another node."""

    reason: str  # a short stable label for a counter, e.g. "pod-on-other-node"


Resolution = Resolved | NotYet | Refused


class Resolver(TypingProtocol):
    """Implemented by cluster/; asked by ingest for every new identity."""

    @property
    def generation(self) -> int:
        """Grows whenever the answers may have changed.

        A cached Resolved is good for one generation, and for times between `holds_since` and `holds_until`, as far as
        `known_until`.
        """
        ...

    def known_until(self, cluster: str) -> datetime | None:
        """Up to then answers can be given, and cached ones used: the view has got no further. None = for ever."""
        ...

    def resolve(self, flow: FlowIdentity, at: datetime) -> Resolution:
        """The Link that `flow` belongs to, judged by who had the addresses at the time `at` (timezone-aware UTC)."""
        ...
