"""ClusterCidrs: which addresses are the cluster's own, and the one classification of an address that nobody owns.

Enters: CIDRs with where each was found, and aliases. Leaves: a Classification with its reason. Invariant: EXTERNAL is
said only when pod and Service CIDRs are both known; what a person sets by hand wins over all that was discovered; an
alias wins over the rest, except in the cluster's own pod and Service ranges, which never become somebody's name.
Addresses are classified when asked, so a new CIDR or alias changes the answer at once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network

from aggregator.model.address import AddressClass, Classification, IPAddress, IPNetwork


class CidrRole(StrEnum):
    POD = "pod"
    SERVICE = "service"
    NODE = "node"


@dataclass(frozen=True, slots=True, kw_only=True)
class CidrSource:
    """One CIDR and where it was found: "by hand", "Node worker-1 spec.podCIDRs", "kube-apiserver on cp-1", ..."""

    role: CidrRole
    cidr: IPNetwork
    found_in: str
    by_hand: bool = False
    whole: bool = True  # False = a node's part of the pod CIDR, not all of it


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterCidrs:
    """The cluster's own ranges. Set by hand for a role, nothing discovered counts for that role."""

    sources: tuple[CidrSource, ...] = ()
    node_addresses: frozenset[IPAddress] = frozenset()
    every_node_has_pod_cidr: bool = False
    vouched_complete: bool = False  # whoever gave the sources says that they are all

    def of(self, role: CidrRole) -> tuple[IPNetwork, ...]:
        return tuple(dict.fromkeys(s.cidr for s in self._counted(role)))

    def _counted(self, role: CidrRole) -> Sequence[CidrSource]:
        found = [s for s in self.sources if s.role is role]
        return [s for s in found if s.by_hand] or found

    def containing(self, ip: IPAddress) -> CidrSource | None:
        """The narrowest range of the cluster that holds `ip`; what was set by hand is asked first."""
        holding = [s for role in CidrRole for s in self._counted(role) if ip in s.cidr]
        return max(holding, key=lambda s: (s.by_hand, s.cidr.prefixlen), default=None)

    @property
    def missing(self) -> tuple[CidrRole, ...]:
        """The roles without which nothing can be called external."""
        if self.vouched_complete:
            return ()
        lacking = []
        pods = self._counted(CidrRole.POD)
        if not any(s.whole for s in pods) and not (pods and self.every_node_has_pod_cidr):
            lacking.append(CidrRole.POD)
        if not self._counted(CidrRole.SERVICE):
            lacking.append(CidrRole.SERVICE)
        return tuple(lacking)

    @property
    def complete(self) -> bool:
        return not self.missing

    def touching(self, cidr: IPNetwork) -> tuple[CidrSource, ...]:
        """The cluster's own ranges that a CIDR overlaps: such a rule would speak of pods, Services or nodes."""
        return tuple(
            s for role in CidrRole for s in self._counted(role) if s.cidr.version == cidr.version and _overlap(s, cidr)
        )


def _overlap(source: CidrSource, cidr: IPNetwork) -> bool:
    return source.cidr.overlaps(cidr)


def classify(
    subject: IPAddress | IPNetwork, cidrs: ClusterCidrs, aliases: Mapping[IPNetwork, str] | None = None
) -> Classification:
    """The class of an address, or of a CIDR that a person typed, with the reason in words."""
    alias = _alias(subject, aliases or {})
    own = _own_range(subject, cidrs)
    if alias is not None and not _is_pods_or_services(subject, cidrs):
        cidr, name = alias
        touches = f"; it is inside the cluster's {own}" if own else ""
        return Classification(
            address_class=AddressClass.ALIASED, reason=f"named {name!r} by the alias for {cidr}{touches}", alias=name
        )
    if own:
        named = f" (the alias {alias[1]!r} for {alias[0]} does not count there)" if alias is not None else ""
        return Classification(address_class=AddressClass.INTERNAL, reason=f"inside the cluster's {own}{named}")
    if cidrs.complete:
        return Classification(
            address_class=AddressClass.EXTERNAL, reason="outside every pod, Service and node range of the cluster"
        )
    return Classification(
        address_class=AddressClass.UNKNOWN,
        reason=f"the cluster's {' and '.join(r.value for r in cidrs.missing)} range is not known",
    )


def _is_pods_or_services(subject: IPAddress | IPNetwork, cidrs: ClusterCidrs) -> bool:
    """A neighbour in the nodes' subnet may have a name, a pod's or a Service's address never."""
    if isinstance(subject, IPv4Network | IPv6Network):
        return any(source.role is not CidrRole.NODE for source in cidrs.touching(subject))
    return any(subject in cidr for role in (CidrRole.POD, CidrRole.SERVICE) for cidr in cidrs.of(role))


def _own_range(subject: IPAddress | IPNetwork, cidrs: ClusterCidrs) -> str:
    """In words, the range of the cluster that the subject is in or touches; "" when it is outside them all."""
    if isinstance(subject, IPv4Network | IPv6Network):
        touching = cidrs.touching(subject)
        node = next((ip for ip in sorted(cidrs.node_addresses, key=str) if ip in subject), None)
        if touching:
            return " and ".join(f"{s.role.value} range {s.cidr} ({s.found_in})" for s in touching)
        return f"node address {node}" if node is not None else ""
    if subject in cidrs.node_addresses:
        return "nodes"
    source = cidrs.containing(subject)
    return f"{source.role.value} range {source.cidr} ({source.found_in})" if source else ""


def _alias(subject: IPAddress | IPNetwork, aliases: Mapping[IPNetwork, str]) -> tuple[IPNetwork, str] | None:
    """The narrowest alias that covers the whole subject."""
    covering = [(cidr, name) for cidr, name in aliases.items() if _covers(cidr, subject)]
    return max(covering, key=lambda found: found[0].prefixlen, default=None)


def _covers(cidr: IPNetwork, subject: IPAddress | IPNetwork) -> bool:
    if cidr.version != subject.version:
        return False
    if isinstance(subject, IPv4Network | IPv6Network):
        return subject.subnet_of(cidr)  # type: ignore[arg-type] # equal versions were checked above
    return subject in cidr
