"""Applies what services.py computes: EndpointSlices into the object folder, nft rules into each node, names into DNS.

Enters: the pods as they are. Leaves: nothing but effects, and those only when something changed.
"""

from collections.abc import Sequence
from pathlib import Path

from lab import pods, services
from lab.addresses import NodePlan, ServiceAddresses
from lab.cluster import admit_service, api_service
from lab.controller import Names, admit
from lab.files import write_atomically
from lab.network import Wires, inside
from lab.objects import ObjectFolder
from lab.pods import Pod
from lab.scenario import Manifest, Scenario


class Proxy:
    """Every Service of a lab, the API server's included."""

    def __init__(
        self, scenario: Scenario, nodes: Sequence[NodePlan], wires: Wires, objects: ObjectFolder, names: Names
    ) -> None:
        self.lab = scenario.lab
        self.nodes = nodes
        self.wires = wires
        self.objects = objects
        self.names = names
        declared = scenario.of_kind("Service")
        reserved = [s["spec"]["clusterIP"] for s in declared if s["spec"].get("clusterIP") not in (None, "None")]
        free = ServiceAddresses(scenario.lab.cidrs, reserved)
        api = api_service(scenario, names)
        self.services = [api, *(admit_service(service, free, names) for service in declared)]
        self.fixed = [admit(services.api_slice(api, [str(nodes[0].addresses[0])]), names)]
        self.slices: dict[str, Manifest] = {}
        self.rules = ""
        self.said = ""
        for item in [*self.services, *self.fixed]:
            objects.put(item)

    def nameserver(self) -> str | None:
        """The address of the first Service on port 53."""
        for service in self.services:
            if any(port["port"] == 53 for port in service["spec"]["ports"]):
                address: str = service["spec"]["clusterIP"]
                return address
        return None

    def sync(self, running: Sequence[Pod], hosts_file: Path) -> None:
        backends = [
            services.Backend(manifest=pod.manifest, addresses=pod.addresses, node=pod.node.name, ready=pod.ready)
            for pod in running
        ]
        self._sync_slices(backends)
        rules = services.ruleset(self.services, [*self.fixed, *self.slices.values()], self.lab.cidrs)
        if rules != self.rules:
            for node in self.nodes:
                inside(self.wires.node(node.name), "nft", "-f", "-", given=rules)
            self.rules = rules
        self._sync_names(backends, [pod for pod in running if pods.serves_dns(pod.plan) and pod.ready], hosts_file)

    def _sync_slices(self, backends: Sequence[services.Backend]) -> None:
        found: dict[str, Manifest] = {}
        for service in self.services:
            for computed in services.slices(service, backends):
                key = f"{computed['metadata']['namespace']}/{computed['metadata']['name']}"
                known = self.slices.get(key)
                found[key] = {**computed, "metadata": known["metadata"]} if known else admit(computed, self.names)
                self.objects.put(found[key])
        for gone in self.slices.keys() - found.keys():
            self.objects.remove(self.slices[gone])
        self.slices = found

    def _sync_names(self, backends: Sequence[services.Backend], servers: Sequence[Pod], hosts_file: Path) -> None:
        text = services.hosts(self.services, backends, self.lab.world, self.lab.domain)
        # A server that has just become ready may have read the file before its last change.
        said = text + "".join(container.container_id for pod in servers for container in pod.containers)
        if said != self.said:
            write_atomically(hosts_file, text)
            for pod in servers:
                pods.hang_up(pod)
            self.said = said
