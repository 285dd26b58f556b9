"""Discovery of the cluster's own ranges from what the cluster itself shows.

Enters: Nodes, ServiceCIDRs, the kubeadm-config ConfigMap, and the arguments of control-plane processes that agents saw
on their nodes. Leaves: CidrSources. Invariant: each carries the place where it was found, so a person can check it.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from ipaddress import ip_network
from typing import NamedTuple

import yaml

from aggregator.cluster.cidrs import complete_with
from aggregator.cluster.reduce import Raw, networks
from aggregator.cluster.view import ClusterView
from aggregator.errors import InputError
from aggregator.model.address import IPNetwork
from aggregator.model.cidrs import CidrRole, CidrSource, ClusterCidrs

FOLLOW_SECONDS = 30.0
# Arguments of the control plane's own processes, https://kubernetes.io/docs/reference/command-line-tools-reference/
FLAGS = {
    "service-cluster-ip-range": CidrRole.SERVICE,  # kube-apiserver, kube-controller-manager
    "cluster-cidr": CidrRole.POD,  # kube-controller-manager, kube-proxy
}


class SeenArgument(NamedTuple):
    """A CIDR in a process' arguments, as a node's agent reported it."""

    node: str  # "" where that was not kept
    process: str
    flag: str  # without the leading dashes
    value: str  # one CIDR, or several with commas (dual stack)


def from_arguments(seen: Iterable[SeenArgument]) -> Iterator[CidrSource]:
    for argument in seen:
        role = FLAGS.get(argument.flag.lstrip("-"))
        if role is not None:
            where = f" on {argument.node}" if argument.node else ""
            found_in = f"--{argument.flag.lstrip('-')} of {argument.process}{where}"
            for cidr in networks(argument.value.split(",")):
                yield CidrSource(role=role, cidr=cidr, found_in=found_in)


def from_nodes(view: ClusterView) -> Iterator[CidrSource]:
    for name, facts in sorted(view.nodes.items()):
        for cidr in facts.node.pod_cidrs:
            yield CidrSource(role=CidrRole.POD, cidr=cidr, found_in=f"Node {name} spec.podCIDRs", whole=False)


def from_service_cidrs(objects: Iterable[Raw]) -> Iterator[CidrSource]:
    for raw in objects:
        found_in = f"ServiceCIDR {raw['metadata']['name']}"
        for cidr in networks((raw.get("spec") or {}).get("cidrs") or ()):
            yield CidrSource(role=CidrRole.SERVICE, cidr=cidr, found_in=found_in)


def from_kubeadm(config_map: Raw | None) -> Iterator[CidrSource]:
    """kube-system/kubeadm-config: ClusterConfiguration.networking, as text in a ConfigMap."""
    text = ((config_map or {}).get("data") or {}).get("ClusterConfiguration", "")
    try:
        configuration = yaml.safe_load(text) or {}
    except yaml.YAMLError:
        return
    networking = configuration.get("networking") if isinstance(configuration, dict) else None
    if not isinstance(networking, dict):
        return
    for key, role in (("podSubnet", CidrRole.POD), ("serviceSubnet", CidrRole.SERVICE)):
        for cidr in networks(str(networking.get(key) or "").split(",")):
            yield CidrSource(role=role, cidr=cidr, found_in=f"ConfigMap kube-system/kubeadm-config networking.{key}")


class Told(NamedTuple):
    """All that agents saw and a person set, as the store has it now."""

    seen: Sequence[SeenArgument] = ()
    by_hand: Sequence[tuple[CidrRole, str]] = ()


class CidrDiscovery:
    """What a person set and what agents saw, kept beside the view: `refresh` brings all together."""

    def __init__(self) -> None:
        self._by_hand: tuple[CidrSource, ...] = ()
        self._seen: dict[tuple[str, str, str], SeenArgument] = {}
        self._done: object = None

    def set_by_hand(self, cidrs: Iterable[tuple[CidrRole, str]]) -> None:
        """Replaces all that was set by hand. Raises InputError for what is no CIDR."""
        self._by_hand = tuple(
            CidrSource(role=role, cidr=_network(text), found_in="set by hand", by_hand=True) for role, text in cidrs
        )

    def see_arguments(self, seen: Iterable[SeenArgument]) -> None:
        """A node's agent reported these; what it said before about the same flag is replaced."""
        for argument in seen:
            if argument.flag.lstrip("-") in FLAGS:
                self._seen[(argument.node, argument.process, argument.flag)] = argument

    async def follow(self, ask: Callable[[], Told], *, every_seconds: float = FOLLOW_SECONDS) -> None:
        """Ask for both again and again until cancelled. `ask` may block (a database): it runs in a thread."""
        while True:
            told = await asyncio.to_thread(ask)
            self.see_arguments(told.seen)
            self.set_by_hand(told.by_hand)
            await asyncio.sleep(every_seconds)

    def refresh(self, view: ClusterView) -> None:
        arguments = tuple(sorted(self._seen.values()))
        inputs = (view.cidr_inputs, self._by_hand, arguments)
        if inputs != self._done:
            self._done = inputs
            view.set_cidrs(discovered_cidrs(view, by_hand=self._by_hand, arguments=arguments))


def _network(text: str) -> IPNetwork:
    try:
        return ip_network(text.strip())
    except ValueError as exc:
        raise InputError(f"{text!r} is no CIDR: {exc}") from exc


def discovered_cidrs(
    view: ClusterView, *, by_hand: Sequence[CidrSource] = (), arguments: Iterable[SeenArgument] = ()
) -> ClusterCidrs:
    """All that is known of the cluster's ranges now."""
    service_cidrs = [raw for (kind, _, _), raw in sorted(view.others.items()) if kind == "ServiceCIDR"]
    sources = [
        *from_service_cidrs(service_cidrs),
        *from_kubeadm(view.config_map("kube-system", "kubeadm-config")),
        *from_arguments(arguments),
        *from_nodes(view),
    ]
    nodes = [facts.node for facts in view.nodes.values()]
    return ClusterCidrs(
        sources=complete_with(sources, by_hand),
        node_addresses=frozenset(ip for node in nodes for ip in node.addresses),
        every_node_has_pod_cidr=bool(nodes) and all(node.pod_cidrs for node in nodes),
    )
