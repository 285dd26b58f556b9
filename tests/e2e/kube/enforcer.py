"""The enforcer of NetworkPolicies on a node: kube-router, which does it by iptables and ipset.

Enters: its program and a kubeconfig. Leaves: its command, what goes before it, and rules without its own.

For IPv6, release 2.1.0 needs two mends: its rules name a set of addresses without the prefix (inet6:) that the set was
made with, so that ip6tables takes none of them, and its pods' chains refuse what neighbours find each other by. Both
are done to what it hands to ip6tables-restore; where they are not needed they change nothing.
"""

import re
from pathlib import Path

from tests.e2e.kube.layout import FAMILIES, Node
from tests.e2e.kube.machine import PATH

CHAINS = ("KUBE-ROUTER-", "KUBE-POD-FW-", "KUBE-NWPLCY-")
PERMITTED = "MARK --set-xmark 0x10000/0x10000"  # how its chains mark what a policy allows
NEIGHBOURS = ("neighbour-solicitation", "neighbour-advertisement")


def command(program: Path, kubeconfig: str, node: Node) -> list[str]:
    return [
        str(program),
        f"--kubeconfig={kubeconfig}",
        f"--hostname-override={node.name}",
        "--run-firewall=true",
        "--run-router=false",
        "--run-service-proxy=false",
        "--run-loadbalancer=false",
        *(f"--service-cluster-ip-range={family.services}" for family in FAMILIES),
        *(f"--enable-ipv{family.version}=true" for family in FAMILIES),
        "--health-port=0",
        "--metrics-port=0",
        "--iptables-sync-period=1m",
    ]


def mends(folder: Path) -> list[str]:
    """What runs a command with an ip6tables-restore of ours, which lies in the folder."""
    folder.mkdir(exist_ok=True)
    let_through = "".join(rf"\1 -p icmpv6 --icmpv6-type {kind} -j {PERMITTED}\n" for kind in NEIGHBOURS)
    edits = ["s|--match-set KUBE-|--match-set inet6:KUBE-|g", rf"s|^(-A KUBE-POD-FW-\S+) .*-j REJECT.*|{let_through}&|"]
    script = " ".join(f"-e '{edit}'" for edit in edits)
    mended = folder / "ip6tables-restore"
    mended.write_text(f'#!/bin/sh\nPATH={PATH}\nsed -E {script} | ip6tables-restore "$@"\n')
    mended.chmod(0o755)
    return ["env", f"PATH={folder}:{PATH}"]


def without(rules: str) -> str:
    """What iptables-save told, but for the enforcer's own: for iptables-restore."""
    return "".join(line for line in rules.splitlines(keepends=True) if not re.search("|".join(CHAINS), line))
