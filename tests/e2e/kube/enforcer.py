"""The enforcer of NetworkPolicies: kube-router, which does it by iptables and ipset, as a DaemonSet.

Enters: its program and a kubeconfig. Leaves: its DaemonSet, which runs on the node's own files, where its iptables are;
and rules without its own.

Two families are more than its release 2.1.0 can do without help: its IPv6 rules name a set of addresses without the
prefix (inet6:) that the set was made with, so that ip6tables takes none of them; its pods' chains refuse what
neighbours find each other by; what it writes of one family's sets takes the other's back to what they held before; and
without IPv4 it finds no pods on its node, whose addresses it compares with IPv4 ones. So each family has a container of
its own, which reads and writes its own sets alone. The one for IPv6 does IPv4, too, to no effect, and its rules are
mended on their way to ip6tables-restore. Where this is not needed it changes nothing.
"""

import re
from pathlib import Path

from tests.cluster.controlplane import Raw
from tests.e2e.kube.images import APPLICATION
from tests.e2e.kube.layout import FAMILIES, Family
from tests.e2e.kube.machine import PATH

NAMESPACE, NAME = "kube-system", "kube-router"
CHAINS = ("KUBE-ROUTER-", "KUBE-POD-FW-", "KUBE-NWPLCY-")
PERMITTED = "MARK --set-xmark 0x10000/0x10000"  # how its chains mark what a policy allows
NEIGHBOURS = ("neighbour-solicitation", "neighbour-advertisement")
OWN_SETS = {4: "!/family inet6/", 6: "/family inet6/"}  # of lines that create one


def daemon_set(program: Path, kubeconfig: str, folder: Path) -> Raw:
    """As kube-router's own is called and switched, so that it can be recognised. `folder`: for the mends."""
    labels = {"k8s-app": NAME}
    spec = {
        "hostNetwork": True,
        "priorityClassName": "system-node-critical",
        "terminationGracePeriodSeconds": 1,
        "tolerations": [{"operator": "Exists"}],
        "containers": [_container(program, kubeconfig, family, folder) for family in FAMILIES],
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


def _container(program: Path, kubeconfig: str, family: Family, folder: Path) -> Raw:
    enabled = [each for each in FAMILIES if each.version <= family.version]
    return {
        "name": f"{NAME}{family.suffix}",
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
            *(f"--service-cluster-ip-range={each.services}" for each in enabled),
            "--enable-ipv4=true",
            f"--enable-ipv6={str(family.version == 6).lower()}",
            "--health-port=0",
            "--metrics-port=0",
            "--iptables-sync-period=1m",
        ],
        "env": [
            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "PATH", "value": f"{_mends(family, folder)}:{PATH}"},
        ],
        "resources": {"requests": {"cpu": "100m"}},
        "securityContext": {"privileged": True},
        "volumeMounts": [{"name": "host", "mountPath": "/host"}],
    }


def _mends(family: Family, folder: Path) -> Path:
    """A folder with what stands before ipset and the programs that take rules."""
    own = folder / family.name
    own.mkdir(parents=True, exist_ok=True)
    own_sets = f"awk '/^create /{{ own[$2] = {OWN_SETS[family.version]} }} own[$2]'"
    cases = f'save) ipset "$@" | {own_sets} ;; restore) {own_sets} | ipset "$@" ;; *) ipset "$@" ;;'
    _program(own / "ipset", f'case "$1" in {cases} esac')
    if family.version == 6:
        let_through = "".join(rf"\1 -p icmpv6 --icmpv6-type {kind} -j {PERMITTED}\n" for kind in NEIGHBOURS)
        rejecting = rf"s|^(-A KUBE-POD-FW-\S+) .*-j REJECT.*|{let_through}&|"
        edits = f"-e 's|--match-set KUBE-|--match-set inet6:KUBE-|g' -e '{rejecting}'"
        _program(own / "ip6tables-restore", f'sed -E {edits} | ip6tables-restore "$@"')
        _program(own / "iptables-restore", "cat > /dev/null")
    return own


def _program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\nPATH={PATH}\n{script}\n")
    path.chmod(0o755)


def without(rules: str) -> str:
    """What iptables-save told, but for the enforcer's own: for iptables-restore."""
    return "".join(line for line in rules.splitlines(keepends=True) if not re.search("|".join(CHAINS), line))
