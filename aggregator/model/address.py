"""Addresses: one spelling each, and the classes of those that nobody owns."""

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network


def canonical_address(value: str | int | bytes | IPAddress) -> IPAddress:
    """The address in its one spelling: v4-mapped IPv6 (RFC 4291 section 2.5.5.2) is IPv4. Raises ValueError."""
    address = value if isinstance(value, IPv4Address | IPv6Address) else ip_address(value)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


class AddressClass(Enum):
    """What is known of an address that no pod, Service or node owns."""

    INTERNAL = "internal"  # inside a pod, Service or node CIDR
    EXTERNAL = "external"  # outside all of them, and the CIDRs are complete
    ALIASED = "aliased"  # a person named it
    UNKNOWN = "unknown"  # the CIDRs are incomplete


@dataclass(frozen=True, slots=True, kw_only=True)
class Classification:
    """The class of an address with the reason, in words."""

    address_class: AddressClass
    reason: str
    alias: str = ""
