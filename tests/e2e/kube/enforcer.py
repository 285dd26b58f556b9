"""The enforcer of NetworkPolicies on a node: kube-router, which does it by iptables and ipset.

Enters: its program and a kubeconfig. Leaves: the command of a process for one family, and rules without its own.

Two families are more than its release 2.1.0 can do without help: its IPv6 rules name a set of addresses without the
prefix (inet6:) that the set was made with, so that ip6tables takes none of them; its pods' chains refuse what
neighbours find each other by; and what it writes of one family's sets takes the other's back to what they held before.
So each family has a process of its own, which is shown its own sets alone, and whose rules are mended on their way to
ip6tables-restore. Where this is not needed it changes nothing.
"""

import re
from pathlib import Path

from tests.e2e.kube.layout import Family, Node
from tests.e2e.kube.machine import PATH

CHAINS = ("KUBE-ROUTER-", "KUBE-POD-FW-", "KUBE-NWPLCY-")
PERMITTED = "MARK --set-xmark 0x10000/0x10000"  # how its chains mark what a policy allows
NEIGHBOURS = ("neighbour-solicitation", "neighbour-advertisement")
OWN_SETS = {4: "grep -v inet6:", 6: "grep inet6:"}


def command(program: Path, kubeconfig: str, node: Node, family: Family, folder: Path) -> list[str]:
    """`folder`: of this process alone, for what stands before ipset and ip6tables-restore."""
    return [
        *_with_mends(family, folder),
        str(program),
        f"--kubeconfig={kubeconfig}",
        f"--hostname-override={node.name}",
        "--run-firewall=true",
        "--run-router=false",
        "--run-service-proxy=false",
        "--run-loadbalancer=false",
        f"--service-cluster-ip-range={family.services}",
        f"--enable-ipv4={str(family.version == 4).lower()}",
        f"--enable-ipv6={str(family.version == 6).lower()}",
        "--health-port=0",
        "--metrics-port=0",
        "--iptables-sync-period=1m",
    ]


def _with_mends(family: Family, folder: Path) -> list[str]:
    folder.mkdir(exist_ok=True)
    _program(
        folder / "ipset", f'[ "$1" != save ] || {{ ipset "$@" | {OWN_SETS[family.version]}; exit 0; }}\nipset "$@"'
    )
    let_through = "".join(rf"\1 -p icmpv6 --icmpv6-type {kind} -j {PERMITTED}\n" for kind in NEIGHBOURS)
    edits = ["s|--match-set KUBE-|--match-set inet6:KUBE-|g", rf"s|^(-A KUBE-POD-FW-\S+) .*-j REJECT.*|{let_through}&|"]
    script = " ".join(f"-e '{edit}'" for edit in edits)
    _program(folder / "ip6tables-restore", f'sed -E {script} | ip6tables-restore "$@"')
    return ["env", f"PATH={folder}:{PATH}"]


def _program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\nPATH={PATH}\n{script}\n")
    path.chmod(0o755)


def without(rules: str) -> str:
    """What iptables-save told, but for the enforcer's own: for iptables-restore."""
    return "".join(line for line in rules.splitlines(keepends=True) if not re.search("|".join(CHAINS), line))
