"""One node: namespaces of its own, containerd, a CNI bridge, kubelet, kube-proxy, and the policies' enforcer.

Its folders (/var/lib/kubelet, /var/log/pods, /run/containerd ...) are where every node has them, each bound over by one
of this node's own in its mount namespace: what a pod mounts from the node's disk is its own node's. bpffs is a new one,
too; tracefs, the cgroup trees and the process table are the kernel's, which both nodes share.
"""

import json
import subprocess  # noqa: TC003 - Popen is what a daemon is held by
from pathlib import Path

import yaml

from tests.cluster.controlplane import Admin, wait_until
from tests.e2e.kube import enforcer
from tests.e2e.kube.imagestore import CONTAINERD, link_store
from tests.e2e.kube.layout import DNS_ADDRESS, DOMAIN, FAMILIES, POD_CIDRS, SETTINGS, Family, Node
from tests.e2e.kube.machine import STATE, hold_namespaces, make_group, run, start
from tests.e2e.kube.pki import Pki

SOCKET = "unix:///run/containerd/containerd.sock"
OWN_FOLDERS = (
    "/etc/cni/net.d",
    "/run/containerd",
    "/run/xtables",
    "/var/lib/cni",
    "/var/lib/containerd",
    "/var/lib/kubelet",
    "/var/lib/wattle",
    "/var/log/containers",
    "/var/log/pods",
)
# What a kubelet and kube-proxy would write into the whole machine: bound over, so that its own values stay.
KEPT = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}


class RunningNode:
    def __init__(self, node: Node, *, pki: Pki, programs: Path) -> None:
        self.node = node
        self.folder = STATE / node.name
        self._pki = pki
        self._programs = programs
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    # ---- life --------------------------------------------------------------------------------------------------------

    def boot(self, store: Path) -> None:
        """Namespaces, wires, containerd on a copy of an image store. Returns once containerd answers."""
        self._processes["holder"] = hold_namespaces(f"{self.node.name}-holder")
        self.pid = self._processes["holder"].pid
        make_group(self.node.name)
        self._bind()
        link_store(store, self.own("/var/lib/containerd"))
        self._wire()
        self.start("containerd")
        wait_until(lambda: self.inside("ctr", "version"), f"{self.node.name}'s containerd", 60)

    def inside(self, *command: str, given: str | None = None, seconds: float = 120) -> str:
        return run("nsenter", "--net", "--mount", "-t", str(self.pid), "--", *command, given=given, seconds=seconds)

    def join(self, admin: Admin) -> None:
        """kubelet and kube-proxy; the pod network once the controller manager has given the node its range."""
        self.start("kubelet")
        self.start("kube-proxy")
        path = f"/api/v1/nodes/{self.node.name}"
        self.pod_cidrs: list[str] = wait_until(
            lambda: admin.get(path)["spec"].get("podCIDRs"), f"{self.node.name}'s ranges of pod addresses", 120
        )
        assert len(self.pod_cidrs) == len(FAMILIES)
        self._write_cni()

    def routes(self) -> str:
        """The way to this node's pods, for `ip -batch`."""
        ways = zip(self.pod_cidrs, self.node.addresses, strict=True)
        return "".join(f"route replace {cidr} via {address}\n" for cidr, address in ways)

    def route_to(self, other: "RunningNode") -> None:
        self.inside("ip", "-batch", "-", given=other.routes())

    def rules(self, family: Family) -> str:
        """What iptables holds of a family: the enforcer's rules, by the tables that it uses."""
        return self.inside(f"ip{family.suffix}tables-save")

    def start(self, daemon: str) -> None:
        self._processes[daemon] = start(
            f"{self.node.name}-{daemon}",
            self._command(daemon),
            inside=self.pid,
            environment={"CONTAINERD_ADDRESS": "/run/containerd/containerd.sock"},
        )

    def enforce(self, program: Path) -> None:
        """Start the enforcer, of each family."""
        for family in FAMILIES:
            name = _enforcer_of(family)
            own = self.folder / name
            command = enforcer.command(program, self._pki.kubeconfig("admin"), self.node, family, own)
            self._processes[name] = start(f"{self.node.name}-{name}", command, inside=self.pid)

    def stop_enforcing(self) -> None:
        """End the enforcer and take its rules away: left alone, they would outlive it."""
        for family in FAMILIES:
            self.kill(_enforcer_of(family))
            self.inside(f"ip{family.suffix}tables-restore", given=enforcer.without(self.rules(family)))

    def kill(self, daemon: str) -> None:
        process = self._processes.pop(daemon)
        process.kill()
        process.wait()

    def runs(self, daemon: str) -> bool:
        process = self._processes.get(daemon)
        return process is not None and process.poll() is None

    # ---- settings ----------------------------------------------------------------------------------------------------

    def _command(self, daemon: str) -> list[str]:
        match daemon:
            case "containerd":
                return ["containerd", "--config", self._write("containerd.toml", CONTAINERD)]
            case "kubelet":
                return [
                    str(self._programs / "kubelet"),
                    f"--config={self._write('kubelet.yaml', yaml.safe_dump(self._kubelet()))}",
                    f"--kubeconfig={self._pki.kubeconfig(self.node.name)}",
                    f"--hostname-override={self.node.name}",
                    f"--node-ip={','.join(self.node.addresses)}",
                ]
            case "kube-proxy":
                settings = self._write("proxy.yaml", yaml.safe_dump(self._proxy()))
                return [str(self._programs / "kube-proxy"), f"--config={settings}"]
        raise ValueError(daemon)

    def _kubelet(self) -> dict[str, object]:
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": self._pki.path("ca.crt")},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": self._pki.path(f"{self.node.name}.crt"),
            "tlsPrivateKeyFile": self._pki.path(f"{self.node.name}.key"),
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": self.node.cgroup,
            "failCgroupV1": False,
            "failSwapOn": False,
            "containerRuntimeEndpoint": SOCKET,
            "resolvConf": "",
            "clusterDNS": [DNS_ADDRESS],
            "clusterDomain": DOMAIN,
            "oomScoreAdj": 0,
            "volumePluginDir": str(self.folder / "plugins"),
            "imageGCHighThresholdPercent": 100,
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
            "nodeStatusUpdateFrequency": "10s",
            "maxPods": 110,
            # Containers that are killed in a test come back as quickly the tenth time as the first.
            "featureGates": {"KubeletCrashLoopBackOffMax": True},
            "crashLoopBackOff": {"maxContainerRestartPeriod": "1s"},
        }

    def _proxy(self) -> dict[str, object]:
        return {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "nftables",
            "clusterCIDR": POD_CIDRS,
            "clientConnection": {"kubeconfig": self._pki.kubeconfig("proxy")},
            "hostnameOverride": self.node.name,
            "oomScoreAdj": 0,
            "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        }

    def _write_cni(self) -> None:
        ipam = {
            "type": "host-local",
            "ranges": [[{"subnet": cidr}] for cidr in self.pod_cidrs],
            "routes": [{"dst": family.everything} for family in FAMILIES],
        }
        bridge = {
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": True,
            "ipMasq": False,
            "hairpinMode": True,
            "ipam": ipam,
        }
        portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
        conflist = {"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge, portmap]}
        target = self.own("/etc/cni/net.d") / "10-bridge.conflist"
        target.with_suffix(".new").write_text(json.dumps(conflist))
        target.with_suffix(".new").rename(target)

    def _write(self, name: str, text: str) -> str:
        path = self.folder / name
        path.write_text(text)
        return str(path)

    # ---- namespaces --------------------------------------------------------------------------------------------------

    def own(self, folder: str) -> Path:
        """What stands in the folder's place on this node."""
        return self.folder / "own" / folder.strip("/").replace("/", "-")

    def _bind(self) -> None:
        lines = ["mount --make-rshared /"]
        for folder in OWN_FOLDERS:
            own = self.own(folder)
            own.mkdir(parents=True)
            Path(folder).mkdir(parents=True, exist_ok=True)
            lines.append(f"mount --bind {own} {folder}")
        for number, (key, value) in enumerate(KEPT.items()):
            own = self.folder / f"sysctl-{number}"
            own.write_text(value + "\n")
            lines.append(f"[ ! -e /proc/sys/{key} ] || mount --bind {own} /proc/sys/{key}")
        lines += ["mount -t bpf bpf /sys/fs/bpf", "mount -t tracefs tracefs /sys/kernel/tracing"]
        self.inside("sh", "-ec", "\n".join(lines))

    def _wire(self) -> None:
        port = f"node{self.node.number}"
        run("ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", str(self.pid))
        run("ip", "link", "set", port, "master", "fabric", "up")
        for key, value in SETTINGS.items():
            self.inside("sh", "-ec", f"echo {value} > /proc/sys/net/{key}")
        lines = ["link set lo up", "link set eth0 up"]
        for family in FAMILIES:
            lines.append(f"addr add {self.node.address(family)}/{family.prefix} dev eth0")
            lines.append(f"route add default via {family.gateway}")
            # As any cluster: towards the outside, pods go under their node's address.
            ip = f"ip{family.suffix}"
            rule = f"{ip} saddr {family.pods} {ip} daddr != {{ {family.pods}, {family.fabric} }} masquerade"
            table = f"table {ip} outward {{ chain post {{ type nat hook postrouting priority srcnat; {rule}; }}; }}"
            self.inside("nft", "-f", "-", given=table)
        self.inside("ip", "-batch", "-", given="\n".join(lines) + "\n")


def _enforcer_of(family: Family) -> str:
    return f"kube-router-{family.name}"
