"""What kube-proxy, the EndpointSlice controller and the DNS controller do: from Services and ready pods to slices, nft
rules and a hosts file. Pure: the supervisor applies what leaves here.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from lab.addresses import FAMILY
from lab.controller import owner_reference
from lab.scenario import Manifest
from lab.settings import Address, Cidrs, WorldHost

TABLE = "wattle_lab"
WORDS = {"IPv4": ("ip", "ip"), "IPv6": ("ip6", "ip6")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """A pod as a Service sees it."""

    manifest: Manifest
    addresses: tuple[Address, ...]
    node: str
    ready: bool

    def address(self, family: str) -> str | None:
        return next((str(a) for a in self.addresses if FAMILY[a.version] == family), None)


def selected(service: Manifest, backends: Iterable[Backend]) -> list[Backend]:
    selector = service["spec"].get("selector")
    if not selector:
        return []
    return [
        backend
        for backend in backends
        if backend.manifest["metadata"]["namespace"] == service["metadata"]["namespace"]
        and backend.addresses
        and selector.items() <= backend.manifest["metadata"].get("labels", {}).items()
    ]


def target_port(pod: Manifest, port: Mapping[str, Any]) -> int | None:
    """The number behind a targetPort on this very pod: names may differ from pod to pod."""
    target = port["targetPort"]
    if isinstance(target, int):
        return target
    for container in pod["spec"]["containers"]:
        for offered in container.get("ports", []):
            if offered.get("name") == target and offered.get("protocol", "TCP") == port["protocol"]:
                number: int = offered["containerPort"]
                return number
    return None


def slices(service: Manifest, backends: Sequence[Backend]) -> list[Manifest]:
    """One EndpointSlice per family and per set of port numbers."""
    groups: dict[tuple[str, tuple[int | None, ...]], list[Backend]] = {}
    chosen = selected(service, backends)
    for family in service["spec"]["ipFamilies"]:
        for backend in chosen:
            if backend.address(family):
                numbers = tuple(target_port(backend.manifest, port) for port in service["spec"]["ports"])
                groups.setdefault((family, numbers), []).append(backend)
    made = []
    for (family, numbers), members in groups.items():
        digest = hashlib.sha256(f"{family}{numbers}".encode()).hexdigest()[:5]
        ports = [
            {"name": port.get("name", ""), "port": number, "protocol": port["protocol"]}
            for port, number in zip(service["spec"]["ports"], numbers, strict=True)
            if number is not None
        ]
        endpoints = [
            {
                "addresses": [member.address(family)],
                "conditions": {"ready": member.ready, "serving": member.ready, "terminating": False},
                "nodeName": member.node,
                "targetRef": {
                    "kind": "Pod",
                    "name": member.manifest["metadata"]["name"],
                    "namespace": member.manifest["metadata"]["namespace"],
                    "uid": member.manifest["metadata"]["uid"],
                },
            }
            for member in members
        ]
        made.append(endpoint_slice(service, digest, family, endpoints, ports))
    return made


def endpoint_slice(
    service: Manifest, digest: str, family: str, endpoints: list[dict[str, Any]], ports: list[dict[str, Any]]
) -> Manifest:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{service['metadata']['name']}-{digest}",
            "namespace": service["metadata"]["namespace"],
            "labels": {
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
                "kubernetes.io/service-name": service["metadata"]["name"],
            },
            "ownerReferences": [owner_reference(service)],
        },
        "addressType": family,
        "endpoints": endpoints,
        "ports": ports,
    }


def api_slice(service: Manifest, node_addresses: Sequence[str]) -> Manifest:
    """The API server's own endpoints, on the nodes' addresses."""
    endpoints = [{"addresses": [address], "conditions": {"ready": True}} for address in node_addresses]
    found = endpoint_slice(service, "api", "IPv4", endpoints, [{"name": "https", "port": 6443, "protocol": "TCP"}])
    found["metadata"]["name"] = "kubernetes"
    return found


def ruleset(services: Sequence[Manifest], found: Sequence[Manifest], cidrs: Cidrs) -> str:
    """One node's nft rules: DNAT to a ready backend, chosen at random; nothing else of the host is known to it."""
    by_service: dict[tuple[str, str], list[Manifest]] = {}
    for item in found:
        meta = item["metadata"]
        by_service.setdefault((meta["namespace"], meta["labels"]["kubernetes.io/service-name"]), []).append(item)
    tables = []
    for network, pods, nodes in zip(cidrs.services, cidrs.pods, cidrs.nodes, strict=True):
        family = FAMILY[network.version]
        word, match = WORDS[family]
        dnat: list[str] = []
        hairpin: set[str] = set()
        for service in services:
            address = next(
                (a for a in service["spec"]["clusterIPs"] if a != "None" and FAMILY[ip_address(a).version] == family),
                None,
            )
            if address is None:
                continue
            mine = by_service.get((service["metadata"]["namespace"], service["metadata"]["name"]), [])
            for port in service["spec"]["ports"]:
                targets = _targets([s for s in mine if s["addressType"] == family], port)
                hairpin |= {target for target, _ in targets}
                if targets:
                    goal = f"{match} daddr {address} {port['protocol'].lower()} dport {port['port']}"
                    dnat.append(f"{goal} dnat to {_choice(targets)}")
        lines = [f"{match} saddr {a} {match} daddr {a} masquerade" for a in sorted(hairpin)]
        lines.append(
            f'{match} saddr {pods} {match} daddr != {{ {pods}, {network}, {nodes} }} oifname "uplink" masquerade'
        )
        tables.append(
            f"table {word} {TABLE} {{}}\nflush table {word} {TABLE}\ntable {word} {TABLE} {{\n"
            + _chain("services", "", dnat)
            + _chain("prerouting", "type nat hook prerouting priority -100;", ["jump services"])
            + _chain("output", "type nat hook output priority -100;", ["jump services"])
            + _chain("postrouting", "type nat hook postrouting priority 100;", lines)
            + _chain("unserved", "type filter hook forward priority 0;", [f"{match} daddr {network} reject"])
            + _chain("unserved_local", "type filter hook output priority 0;", [f"{match} daddr {network} reject"])
            + "}\n"
        )
    return "".join(tables)


def _chain(name: str, hook: str, rules: Sequence[str]) -> str:
    body = "".join(f"    {line}\n" for line in [hook, *rules] if line)
    return f"  chain {name} {{\n{body}  }}\n"


def _targets(found: Sequence[Manifest], port: Mapping[str, Any]) -> list[tuple[str, int]]:
    return sorted(
        (address, offered["port"])
        for item in found
        for offered in item["ports"]
        if offered["name"] == port.get("name", "") and offered["protocol"] == port["protocol"]
        for endpoint in item["endpoints"]
        if endpoint["conditions"]["ready"]
        for address in endpoint["addresses"]
    )


def _choice(targets: Sequence[tuple[str, int]]) -> str:
    if len(targets) == 1:
        address, port = targets[0]
        return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    choices = ", ".join(f"{i} : {address} . {port}" for i, (address, port) in enumerate(targets))
    return f"numgen random mod {len(targets)} map {{ {choices} }}"


def hosts(services: Sequence[Manifest], backends: Sequence[Backend], world: Sequence[WorldHost], domain: str) -> str:
    """The names that the cluster's DNS knows, as a hosts file."""
    lines: set[str] = set()
    for service in services:
        meta = service["metadata"]
        name = f"{meta['name']}.{meta['namespace']}.svc.{domain}"
        addresses = [a for a in service["spec"]["clusterIPs"] if a != "None"]
        lines |= {f"{address} {name}" for address in addresses}
        if addresses:
            continue
        for backend in selected(service, backends):
            if backend.ready:
                lines |= {f"{a} {name}" for a in map(backend.address, service["spec"]["ipFamilies"]) if a}
                spec = backend.manifest["spec"]
                if spec.get("hostname") and spec.get("subdomain") == meta["name"]:
                    lines |= {
                        f"{a} {spec['hostname']}.{name}"
                        for a in map(backend.address, service["spec"]["ipFamilies"])
                        if a
                    }
    lines |= {f"{host.address} {name}" for host in world for name in host.names}
    return "".join(f"{line}\n" for line in sorted(lines))
