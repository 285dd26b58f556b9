"""What a person would find out too late: policies as `wattle generate` prints them, read as the cluster would."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from aggregator.cli.main import run

NODES = "[{name: n1, ip: 192.168.0.1}, {name: n2, ip: 192.168.0.2}]"
COREDNS = """
- {namespace: kube-system, name: coredns-1, labels: {k8s-app: kube-dns}, ip: 10.0.1.1, nodeIP: 192.168.0.2,
   owner: {kind: Deployment, name: coredns}, ports: [{name: dns, port: 5353, protocol: UDP}]}
"""
WEB = """
- {namespace: shop, name: web-1, labels: {app: web}, ip: 10.0.0.1, nodeIP: 192.168.0.1,
   owner: {kind: Deployment, name: web}}
"""
KUBE_DNS = """
- {namespace: kube-system, name: kube-dns, clusterIP: 10.96.0.10, selector: {k8s-app: kube-dns},
   ports: [{name: dns, port: 53, targetPort: 5353, protocol: UDP}, {name: tcp, port: 53, targetPort: 5353}]}
"""


class Said(NamedTuple):
    code: int
    out: str
    err: str


Wattle = Callable[..., Said]


@pytest.fixture
def wattle(capsys: pytest.CaptureFixture[str]) -> Wattle:
    def call(*arguments: object) -> Said:
        code = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Said(code, captured.out, captured.err)

    return call


def page(path: Path, *, pods: str, flows: str, services: str = "", rest: str = "") -> Path:
    file = path / "page.yaml"
    file.write_text(
        f"name: field\nnodes: {NODES}\npod_cidrs: [10.0.0.0/16]\nservice_cidrs: [10.96.0.0/16]\n"
        f"pods:{pods}\nservices:{services or ' []'}\nflows:{flows}\n{rest}"
    )
    return file


def policies(said: Said) -> dict[str, Any]:
    return {doc["metadata"]["name"]: doc["spec"] for doc in yaml.safe_load_all(said.out)}


def peers(rules: list[dict[str, Any]], key: str) -> list[str]:
    return [peer["ipBlock"]["cidr"] for rule in rules for peer in rule.get(key, []) if "ipBlock" in peer]


def test_node_local_caches_may_ask_the_dns_pods_that_a_policy_closes(wattle: Wattle, tmp_path: Path) -> None:
    """The caches are on their nodes' network: without a rule for the nodes, what no cache knows resolves no more."""
    asks = """
- {from: shop/web-1, to: "ip:10.96.0.10", port: 53, protocol: UDP, origin: sendmsg}
- {from: shop/web-1, to: "ip:169.254.20.10", port: 53, protocol: UDP, origin: sendmsg}
"""
    found = policies(wattle("generate", page(tmp_path, pods=COREDNS + WEB, flows=asks, services=KUBE_DNS)))
    assert peers(found["wattle-coredns"]["ingress"], "from") == ["192.168.0.1/32", "192.168.0.2/32"]
    without = asks.replace("169.254.20.10", "10.96.0.10")
    found = policies(wattle("generate", page(tmp_path, pods=COREDNS + WEB, flows=without, services=KUBE_DNS)))
    assert peers(found["wattle-coredns"]["ingress"], "from") == []


BARE = """
- {namespace: shop, name: bare, ip: 10.0.0.9, nodeIP: 192.168.0.2}
"""


def test_a_caller_that_no_selector_can_name_is_said_beside_the_policy_that_cuts_it(
    wattle: Wattle, tmp_path: Path
) -> None:
    flows = "\n- {from: shop/bare, to: shop/web-1, port: 80}\n- {from: kube-system/coredns-1, to: shop/web-1, port: 80}"
    said = wattle("generate", page(tmp_path, pods=WEB + BARE + COREDNS, flows=flows))
    assert "selector-not-separable: shop/Pod/bare -> shop/Deployment/web TCP/80" in said.err
    assert "wattle-web" in policies(said)


def test_a_probe_of_the_own_node_is_not_said_to_be_cut(wattle: Wattle, tmp_path: Path) -> None:
    flows = """
- {from: "ip:192.168.0.1", to: shop/web-1, port: 8081, origin: accept}
- {from: kube-system/coredns-1, to: shop/web-1, port: 80}
"""
    said = wattle("simulate", page(tmp_path, pods=WEB + COREDNS, flows=flows), "-o", "json")
    assert said.code == 0, said.out
    assert '"bucket": "would-be-cut"' not in said.out
    assert "a pod's own node always reaches it" in said.out
