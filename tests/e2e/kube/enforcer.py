"""The enforcer of NetworkPolicies: kube-router, which does it by iptables and ipset, as a DaemonSet.

Enters: its program and a kubeconfig. Leaves: its DaemonSet, which runs on the node's own files, where its iptables are;
and rules without its own.

For IPv6, release 2.1.0 needs two mends: its rules name a set of addresses without the prefix (inet6:) that the set was
made with, so that ip6tables takes none of them, and its pods' chains refuse what neighbours find each other by. Both
are done to what it hands to ip6tables-restore; where they are not needed they change nothing.
"""

import re
from pathlib import Path

from tests.cluster.controlplane import Raw
from tests.e2e.kube.images import APPLICATION
from tests.e2e.kube.layout import FAMILIES
from tests.e2e.kube.machine import PATH

NAMESPACE, NAME = "kube-system", "kube-router"
CHAINS = ("KUBE-ROUTER-", "KUBE-POD-FW-", "KUBE-NWPLCY-")
PERMITTED = "MARK --set-xmark 0x10000/0x10000"  # how its chains mark what a policy allows
NEIGHBOURS = ("neighbour-solicitation", "neighbour-advertisement")


def daemon_set(program: Path, kubeconfig: str, folder: Path) -> Raw:
    """As kube-router's own is called and switched, so that it can be recognised. `folder`: for the mends."""
    labels = {"k8s-app": NAME}
    container = {
        "name": NAME,
        "image": APPLICATION,
        "imagePullPolicy": "Never",
        "command": ["/usr/sbin/chroot", "/host", str(program)],
        "args": [
            f"--kubeconfig={kubeconfig}",
            "--hostname-override=$(NODE)",
            "--run-firewall=true",
            "--run-router=false",
            "--run-service-proxy=false",
            "--run-loadbalancer=false",
            *(f"--service-cluster-ip-range={family.services}" for family in FAMILIES),
            *(f"--enable-ipv{family.version}=true" for family in FAMILIES),
            "--health-port=0",
            "--metrics-port=0",
            "--iptables-sync-period=1m",
        ],
        "env": [
            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "PATH", "value": f"{_mends(folder)}:{PATH}"},
        ],
        "securityContext": {"privileged": True},
        "volumeMounts": [{"name": "host", "mountPath": "/host"}],
    }
    spec = {
        "hostNetwork": True,
        "priorityClassName": "system-node-critical",
        "terminationGracePeriodSeconds": 1,
        "tolerations": [{"operator": "Exists"}],
        "containers": [container],
        "volumes": [{"name": "host", "hostPath": {"path": "/"}}],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": labels},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


def _mends(folder: Path) -> Path:
    """A folder that holds an ip6tables-restore of ours."""
    folder.mkdir(exist_ok=True)
    let_through = "".join(rf"\1 -p icmpv6 --icmpv6-type {kind} -j {PERMITTED}\n" for kind in NEIGHBOURS)
    edits = ["s|--match-set KUBE-|--match-set inet6:KUBE-|g", rf"s|^(-A KUBE-POD-FW-\S+) .*-j REJECT.*|{let_through}&|"]
    script = " ".join(f"-e '{edit}'" for edit in edits)
    mended = folder / "ip6tables-restore"
    mended.write_text(f'#!/bin/sh\nPATH={PATH}\nsed -E {script} | ip6tables-restore "$@"\n')
    mended.chmod(0o755)
    return folder


def without(rules: str) -> str:
    """What iptables-save told, but for the enforcer's own: for iptables-restore."""
    return "".join(line for line in rules.splitlines(keepends=True) if not re.search("|".join(CHAINS), line))
