"""Endpoint: one side of a connection at one time, and the Connection itself."""

from dataclasses import dataclass

from aggregator.model.address import IPAddress
from aggregator.model.cluster import Node, Pod, Service
from aggregator.model.protocol import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class PodEndpoint:
    """A pod by the address in use; a hostNetwork pod counts as its node (NP-28, NP-29)."""

    pod: Pod
    ip: IPAddress


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeEndpoint:
    node: Node
    ip: IPAddress


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceEndpoint:
    """A Service address, before DNAT."""

    service: Service
    ip: IPAddress


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressEndpoint:
    """An address that nobody owns."""

    ip: IPAddress


Endpoint = PodEndpoint | NodeEndpoint | ServiceEndpoint | AddressEndpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """A new connection; `port` is the destination port on the pod, after DNAT (NP-24, NP-34)."""

    src: Endpoint
    dst: Endpoint
    protocol: Protocol
    port: int
