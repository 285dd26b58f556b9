"""The whole cluster: up, ready, and down without a trace.

Enters: programs and images that are there already (building them needs the machine's own network). Leaves: an `Admin`,
two running nodes, DNS. Invariant: what `down` leaves is nothing, and `up` first clears what a killed run left.
"""

import os
from pathlib import Path

from tests.cluster.controlplane import Admin, wait_until
from tests.e2e.kube import enforcer
from tests.e2e.kube.controlplane import ControlPlane
from tests.e2e.kube.imagestore import image_store
from tests.e2e.kube.layout import DNS_ADDRESS, FAMILIES, NODES, SETTINGS, Node
from tests.e2e.kube.machine import STATE, hold, leave_the_network, run, sweep
from tests.e2e.kube.node import RunningNode
from tests.e2e.kube.objects import apply, dns_objects, is_ready, pods, workload_ready
from tests.e2e.kube.pki import Pki


class Cluster:
    """One on a machine, in the network of this process, which leaves the machine's own for it."""

    def __init__(self, *, programs: Path, images: list[Path]) -> None:
        self._programs = programs
        self.enforcer: Path | None = None
        self.without_enforcer = ""  # the reason, where there is none
        self._images = images
        self._lock = -1
        self.nodes: dict[str, RunningNode] = {}

    @property
    def admin(self) -> Admin:
        return self.control.admin

    def reserve(self) -> None:
        """The machine, for this one: until then `down` would take away another's."""
        self._lock = hold()

    def up(self) -> None:
        assert self._lock >= 0, "reserve the machine first"
        sweep()
        STATE.mkdir()
        leave_the_network()
        for key, value in SETTINGS.items():
            (Path("/proc/sys/net") / key).write_text(value)
        lines = ["link add fabric type bridge", "link set fabric up"]
        for family in FAMILIES:
            lines.append(f"addr add {family.gateway}/{family.prefix} dev fabric")
            lines += [f"addr add {address}/{family.single} dev lo" for address in (family.outside, family.visitor)]
        run("ip", "-batch", "-", given="\n".join(lines) + "\n")
        self.pki = Pki(STATE / "pki")
        self.control = ControlPlane(self.pki, self._programs)
        self.control.start()
        self._store = image_store(self._images)
        for node in NODES:
            self._boot(node)
        for running in self.nodes.values():
            running.join(self.admin)
        for running in self.nodes.values():
            run("ip", "-batch", "-", given=running.routes())
            for other in self.nodes.values():
                if other is not running:
                    running.route_to(other)
        for node in NODES:
            path = f"/api/v1/nodes/{node.name}"
            wait_until(lambda path=path: is_ready(self.admin.get(path)), f"{node.name} to be Ready", 180)
        apply(self.admin, dns_objects(DNS_ADDRESS))
        wait_until(
            lambda: workload_ready(self.admin, "kube-system", "Deployment", "kube-dns"), "the cluster's DNS", 120
        )

    def enforce(self) -> None:
        """Start the enforcer on both nodes, where there is one; in force once its chains are there."""
        if self.enforcer is None:
            return
        apply(self.admin, [enforcer.daemon_set(self.enforcer, self.pki.kubeconfig("admin"), STATE / "mends")])
        wait_until(
            lambda: workload_ready(self.admin, enforcer.NAMESPACE, "DaemonSet", enforcer.NAME), "the enforcer", 120
        )
        for running in self.nodes.values():
            for family in FAMILIES:
                wait_until(
                    lambda running=running, family=family: "KUBE-ROUTER" in running.rules(family),
                    f"the enforcer's chains for {family.name}",
                    60,
                )

    def stop_enforcing(self) -> None:
        """End the enforcer on both nodes and take its rules away: left alone, they would outlive it."""
        self.admin.delete(f"/apis/apps/v1/namespaces/{enforcer.NAMESPACE}/daemonsets/{enforcer.NAME}")
        wait_until(
            lambda: not pods(self.admin, enforcer.NAMESPACE, f"k8s-app={enforcer.NAME}"), "the enforcer's end", 60
        )
        for running in self.nodes.values():
            for family in FAMILIES:
                running.inside(f"ip{family.suffix}tables-restore", given=enforcer.without(running.rules(family)))

    def down(self) -> None:
        sweep()
        os.close(self._lock)
        self._lock = -1

    def _boot(self, node: Node) -> None:
        running = RunningNode(node, pki=self.pki, programs=self._programs)
        running.boot(self._store)
        self.nodes[node.name] = running
