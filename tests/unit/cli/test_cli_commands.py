"""The command line through its own entry: what is printed where, and the exit codes 0, 1 and 2."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from aggregator.cli.main import run

PAGE = """
name: shop
namespaces: [{name: shop}]
nodes: [{name: n1, ip: 192.0.2.1}]
pods:
- {namespace: shop, name: web, labels: {app: web}, ip: 10.244.1.1, nodeIP: 192.0.2.1}
- {namespace: shop, name: api, labels: {app: api}, ip: 10.244.1.2, ports: [{name: http, port: 8080}]}
policies:
- apiVersion: networking.k8s.io/v1
  kind: NetworkPolicy
  metadata: {name: api, namespace: shop}
  spec:
    podSelector: {matchLabels: {app: api}}
    policyTypes: [Ingress]
    ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 8080}]}]
flows:
- {from: shop/web, to: shop/api, port: 8080, protocol: TCP, ts: 5}
- {from: shop/web, to: "ip:203.0.113.9", port: 443, protocol: TCP}
expectations:
- {from: shop/web, to: shop/api, port: 8080, protocol: TCP, allowed: true}
- {from: shop/web, to: shop/api, port: 81, protocol: TCP, allowed: false}
"""


class Said(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Wattle = Callable[..., Said]


@pytest.fixture
def wattle(capsys: pytest.CaptureFixture[str]) -> Wattle:
    def call(*arguments: object) -> Said:
        code = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Said(code, captured.out, captured.err)

    return call


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    path = tmp_path / "page.yaml"
    path.write_text(PAGE)
    return path


def edited(shop: Path, old: str, new: str, name: str = "edited.yaml") -> Path:
    text = shop.read_text()
    assert old in text
    path = shop.with_name(name)
    path.write_text(text.replace(old, new))
    return path


def test_version_and_help(wattle: Wattle) -> None:
    said = wattle("--version")
    assert (said.code, said.out.startswith("wattle ")) == (0, True)
    assert wattle("--help").code == 0
    assert wattle().code == 2
    assert wattle("nonsense").code == 2


# ---- test


def test_expectations_that_hold(wattle: Wattle, shop: Path) -> None:
    said = wattle("test", shop, "--output", "json")
    assert (said.code, said.json) == (0, {"checked": 2, "failed": []})
    assert wattle("test", shop, shop).out == "4 checked, 0 failed\n"


def test_expectations_that_do_not_hold(wattle: Wattle, shop: Path) -> None:
    wrong = edited(shop, "allowed: false", "allowed: true")
    said = wattle("test", wrong, "--output", "json")
    assert said.code == 1
    assert said.json["checked"] == 2
    (failed,) = said.json["failed"]
    assert (failed["from"], failed["port"], failed["expected"], failed["actual"]) == (
        "shop/web",
        81,
        "allowed",
        "denied",
    )
    table = wattle("test", wrong)
    assert table.code == 1
    assert "shop/web -> shop/api TCP/81" in table.out
    assert yaml.safe_load(wattle("test", wrong, "-o", "yaml").out)["checked"] == 2


# ---- evaluate and explain


def test_one_question(wattle: Wattle, shop: Path) -> None:
    asked = ("--from", "shop/web", "--to", "shop/api")
    said = wattle("evaluate", shop, *asked, "--port", 8080, "-o", "json")
    assert said.code == 0
    assert said.json[0]["verdict"] == "allowed"
    assert said.json[0]["ingress"]["policies"] == [{"policy": "shop/api", "reason": "allowed", "rules": [1]}]
    said = wattle("evaluate", shop, *asked, "--port", 81)
    assert (said.code, "denied" in said.out) == (1, True)
    udp = wattle("explain", shop, *asked, "--port", 8080, "--protocol", "udp")
    assert udp.code == 1
    assert "shop/api: port-not-matched, rule 1" in udp.out
    expected = "add to shop/api an ingress rule from pods with app=web of the namespace shop on UDP 8080"
    assert expected in udp.out
    outside = wattle("explain", shop, "--from", "203.0.113.1", "--to", "shop/api", "--port", 1, "-o", "yaml")
    (told,) = yaml.safe_load(outside.out)
    assert told["from"] == "ip:203.0.113.1"
    assert told["egress"] == {"outcome": "not-a-pod", "policies": []}
    assert told["fixes"] == ["add to shop/api an ingress rule from the address 203.0.113.1 on TCP 1"]


def test_an_unknown_verdict_says_what_would_have_to_be_known(wattle: Wattle, shop: Path, tmp_path: Path) -> None:
    scenario = yaml.safe_load(shop.read_text())
    scenario["policies"][0]["spec"]["ingress"] = [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]
    scenario["pods"][0].pop("ip")
    path = tmp_path / "unknown.yaml"
    path.write_text(yaml.safe_dump(scenario))
    asked = ("explain", path, "--from", "shop/web", "--to", "shop/api", "--port", 1)
    said = wattle(*asked)
    assert said.code == 1
    assert ": unknown" in said.out
    assert wattle(*asked, "-o", "json").json[0]["ingress"]["cause"]


def test_a_page_asks_its_own_questions(wattle: Wattle, shop: Path) -> None:
    said = wattle("evaluate", shop, "-o", "json")
    assert [(j["to"], j["port"], j["allowed"]) for j in said.json] == [
        ("shop/api", 8080, True),
        ("ip:203.0.113.9", 443, True),
        ("shop/api", 81, False),
    ]
    assert said.code == 1
    gone = edited(
        shop,
        "- {from: shop/web, to: shop/api, port: 8080, protocol: TCP, ts: 5}",
        "- {from: shop/gone, to: shop/api, port: 1}",
    )
    assert len(wattle("evaluate", gone, "-o", "json").json) == 3


# ---- lint, describe, diff


def test_lint(wattle: Wattle, shop: Path) -> None:
    said = wattle("lint", shop, "-o", "json")
    (report,) = said.json
    assert report["summary"]["uncovered"] == {"ingress": ["shop/web"], "egress": ["shop/api", "shop/web"]}
    assert {f["code"] for f in report["findings"]} == {"uncovered-ingress", "uncovered-egress"}
    assert said.code == 0
    assert wattle("lint", shop, "--fail-on", "info").code == 1
    typo = edited(shop, "podSelector: {matchLabels: {app: api}}", "podSelector: {matchLabels: {app: apo}}")
    said = wattle("lint", typo)
    assert said.code == 1
    assert "did you mean app=api?" in said.out
    assert wattle("lint", typo, "--fail-on", "never").code == 0
    assert wattle("lint", typo, "--fail-on", "error").code == 0
    broad = edited(shop, "[{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 8080}]}]", "[{}]")
    (report,) = yaml.safe_load(wattle("lint", broad, "-o", "yaml").out)
    assert report["broad_rules"][0]["rule"] == "shop/api:ingress:0"
    assert report["broad_rules"][0]["observed"] == 1


def test_lint_of_nothing_says_so(wattle: Wattle, tmp_path: Path) -> None:
    path = tmp_path / "empty.json"
    path.write_text('{"name": "empty"}')
    assert wattle("lint", path).out == "0 findings in 1 scenario\n"


def test_describe(wattle: Wattle, shop: Path) -> None:
    said = wattle("describe", shop)
    assert said.out.startswith("Name:       api\nNamespace:  shop\n")
    for name in ("api", "shop/api"):
        (told,) = wattle("describe", shop, "--policy", name, "-o", "json").json
        assert told["ingress"]["isolated"] is True
        assert told["ingress"]["rules"] == [
            {"peers": ["pods with app=web of the namespace shop"], "ports": ["TCP 8080"]}
        ]
    assert wattle("describe", shop, "--policy", "other").code == 2


def test_diff(wattle: Wattle, shop: Path) -> None:
    assert wattle("diff", shop, shop).out == "no connection is opened or closed\n"
    assert wattle("diff", shop, shop).code == 0
    wider = edited(shop, "ports: [{port: 8080}]", "ports: [{port: 8080}, {port: 9000, endPort: 9001}]")
    said = wattle("diff", shop, wider)
    assert said.code == 1
    assert "opened: shop/Pod/web -> shop/Pod/api TCP/9000-9001\n" in said.out
    assert wattle("diff", wider, shop, "-o", "json").json["closed"] == [
        {"from": "shop/Pod/web", "to": "shop/Pod/api", "protocol": "TCP", "first_port": 9000, "last_port": 9001}
    ]


# ---- generate, simulate, export


def test_generate_prints_policies_and_keeps_findings_aside(wattle: Wattle, shop: Path) -> None:
    said = wattle("generate", shop, "--include", "external")
    policies = list(yaml.safe_load_all(said.out))
    assert [p["metadata"]["name"] for p in policies] == ["wattle-api", "wattle-web"]
    assert {"ipBlock": {"cidr": "203.0.113.9/32"}} in [
        peer for rule in policies[1]["spec"]["egress"] for peer in rule["to"]
    ]
    assert "warning: dns-not-found: shop/Pod/web:" in said.err
    assert said.code == 0
    without = wattle("generate", shop)
    assert "203.0.113.9" not in without.out
    assert "unresolved-ip" in without.err


def test_generate_shows_the_proof(wattle: Wattle, shop: Path) -> None:
    (told,) = wattle("generate", shop, "--include", "external", "--evidence", "-o", "json").json
    assert [p["workload"] for p in told["proposals"]] == ["shop/Pod/api", "shop/Pod/web"]
    assert all(p["certificate"]["holds"] for p in told["proposals"])
    assert told["proposals"][0]["included"] == [{"link": "shop/Pod/web -> shop/Pod/api TCP/8080", "reason": "observed"}]
    assert any(p["metadata"].get("annotations") for p in told["policies"])
    table = wattle("generate", shop, "-o", "table")
    assert "shop/Pod/web" in table.out
    assert "(generic)" in table.out


def test_what_a_person_chooses_is_heard(wattle: Wattle, shop: Path) -> None:
    def names(*arguments: str) -> list[str]:
        return [p["metadata"]["name"] for p in yaml.safe_load_all(wattle("generate", shop, *arguments).out) if p]

    assert names("--namespace", "other") == []
    assert names("--default-deny", "shop")[-2:] == ["wattle-default-deny-egress", "wattle-default-deny-ingress"]
    assert names("--default-deny", "shop:egress")[-1] == "wattle-default-deny-egress"
    assert names("--compact") == names()
    types = {
        way: [p["spec"]["policyTypes"] for p in yaml.safe_load_all(wattle("generate", shop, "--unseen", way).out)]
        for way in ("open", "closed", "ingress", "egress")
    }
    assert types == {
        "open": [["Ingress"], ["Egress"]],
        "closed": [["Ingress", "Egress"], ["Ingress", "Egress"]],
        "ingress": [["Ingress"], ["Ingress", "Egress"]],
        "egress": [["Ingress", "Egress"], ["Egress"]],
    }


def test_simulate_says_what_would_be_cut(wattle: Wattle, shop: Path) -> None:
    said = wattle("simulate", shop, "--include", "external")
    assert said.code == 0
    assert "1. apply shop/wattle-" in said.out
    cut = wattle("simulate", shop, "-o", "json")
    assert cut.code == 1
    (told,) = cut.json
    assert told["candidates"]["applied-and-proposed"]["counts"]["would-be-cut"] == 1
    assert [step["action"] for step in told["steps"]] == ["apply", "apply"]
    other = edited(shop, "ports: [{port: 8080}]", "ports: [{port: 1}]", "other.yaml")
    tried = wattle("simulate", shop, "--policies", other, "-o", "yaml")
    assert tried.code == 1
    assert yaml.safe_load(tried.out)[0]["steps"] == []


def test_simulate_advises_a_restart_where_connections_are_old(wattle: Wattle, shop: Path) -> None:
    old = edited(shop, "ts: 5}", "ts: 5}\n- {from: shop/web, to: shop/api, port: 8080, protocol: TCP, ts: 90000}")
    workloads = edited(old, "labels: {app: web}, ip", "labels: {app: web}, owner: {kind: Deployment, name: web}, ip")
    said = wattle("simulate", workloads, "--include", "external")
    assert "restart: " in said.out


@pytest.mark.parametrize("form", ["cilium", "calico", "kustomize"])
def test_export_is_certified(wattle: Wattle, shop: Path, form: str) -> None:
    said = wattle("export", shop, "--to", form)
    assert said.code == 0
    assert said.out.startswith("# ")
    assert ": certified: " in said.out.splitlines()[0]
    assert said.err.startswith("certified: ")
    assert [d for d in yaml.safe_load_all(said.out) if d]


def test_export_of_proposals_into_a_folder(wattle: Wattle, shop: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    arguments = ("export", shop, "--to", "kustomize", "--proposals", "--include", "external", "-d", folder)
    assert wattle(*arguments).out == ""
    assert sorted(path.name for path in folder.iterdir()) == [
        "kustomization.yaml",
        "networkpolicy-shop-wattle-api.yaml",
        "networkpolicy-shop-wattle-web.yaml",
    ]
    table = wattle(*arguments, "-o", "table")
    assert "kustomization.yaml" in table.out
    assert wattle("export", shop, "--to", "kustomize", "-d", shop).code == 2  # a file stands there


def test_what_is_not_certified_is_labelled_and_is_no(wattle: Wattle, shop: Path) -> None:
    for form in ("cluster", "baseline"):
        said = wattle("export", shop, "--to", form, "-o", "json")
        assert said.code == 1
        assert said.json["certified"] is False
        assert said.err.startswith("not certified: shop/api: does not select a whole namespace\n")
    tier = wattle("export", shop, "--to", "calico", "--tier", "mine", "--order", 5)
    assert 'name: "mine.api"' in tier.out


def test_outside_addresses_are_exported_by_name(wattle: Wattle, shop: Path) -> None:
    given = ("export", shop, "--proposals", "--include", "external")
    calico = wattle(*given, "--to", "calico", "--alias", "billing=203.0.113.9/32")
    assert calico.code == 0
    assert "GlobalNetworkSet" in calico.out
    assert "wattle-alias == 'billing'" in calico.out
    cilium = wattle(*given, "--to", "cilium", "--name", "203.0.113.9=billing.example.com")
    assert "toFQDNs" in cilium.out
    assert "billing.example.com" in cilium.out
    assert "toFQDNs" not in wattle(*given, "--to", "cilium").out


@pytest.mark.parametrize(
    ("form", "option", "value", "says"),
    [
        ("cilium", "--alias", "a=203.0.113.0/24", "--alias is for --to calico"),
        ("calico", "--name", "203.0.113.9=x", "--name is for --to cilium"),
        ("calico", "--alias", "a", "is not NAME=CIDR,..."),
        ("calico", "--alias", "a=203.0.113.9/24", "has host bits set"),
        ("cilium", "--name", "203.0.113.9", "is not ADDRESS=HOST"),
        ("cilium", "--name", "nowhere=x", "nowhere"),
    ],
)
def test_a_name_that_cannot_be_used_is_refused(
    wattle: Wattle, shop: Path, form: str, option: str, value: str, says: str
) -> None:
    said = wattle("export", shop, "--to", form, option, value)
    assert said.code == 2
    assert says in said.err


# ---- bad input


def test_every_bad_input_is_one_sentence_and_two(wattle: Wattle, shop: Path, tmp_path: Path) -> None:
    several, binary, empty, text = (
        tmp_path / name for name in ("several.yaml", "binary.yaml", "empty.yaml", "text.yaml")
    )
    several.write_text(PAGE + "---\n" + PAGE)
    binary.write_bytes(b"\xff\xfe\x00")
    empty.write_text("# nothing\n")
    text.write_text("just words")
    policy = edited(shop, "port: 8080}]}]", "port: 8080, protocol: ICMP}]}]", "protocol.yaml")
    key = edited(shop, "name: shop\n", "name: shop\nnamespace: x\n", "key.yaml")
    cases: dict[tuple[object, ...], str] = {
        ("lint", tmp_path / "none"): "cannot be read: No such file",
        ("lint", binary): "no text in UTF-8",
        ("lint", empty): "is empty",
        ("lint", text): "document 1",
        ("lint", policy): "document 1, field policies[0].spec.ingress[0].ports[0].protocol: 'ICMP' is not TCP",
        ("lint", key): "document 1, field namespace: unknown key 'namespace'",
        ("lint", shop, "--profile", "nix"): "there is no profile 'nix'",
        ("test", tmp_path / "none"): "No such file",
        ("test", tmp_path): "Is a directory",
        ("evaluate", shop, "--from", "shop/web"): "belong together",
        ("evaluate", shop, "--from", "shop/x", "--to", "shop/web", "--port", 1): "there is no pod 'shop/x'",
        ("evaluate", shop, "--from", "nonsense", "--to", "shop/web", "--port", 1): "neither NAMESPACE/POD nor",
        ("evaluate", shop, "--from", "ip:1.2.3", "--to", "shop/web", "--port", 1): "'ip:1.2.3' is not an address",
        ("evaluate", shop, "--from", "1.1.1.1", "--to", "shop/web", "--port", 1, "--protocol", "X"): "is not TCP",
        ("diff", shop, several): "holds 2 scenarios",
        ("export", several, "--to", "cilium"): "holds 2 scenarios",
        ("generate", shop, "--include", "all"): "--include 'all' is not external",
        ("generate", shop, "--unseen", "x"): "--unseen 'x' is not open, closed, ingress, egress",
        ("generate", shop, "--default-deny", "shop:both"): "is not NAMESPACE",
        ("generate", shop, "--default-deny", ":egress"): "is not NAMESPACE",
        ("simulate", shop, "--policies", tmp_path / "none"): "cannot be read",
    }
    for arguments, sentence in cases.items():
        said = wattle(*arguments)
        assert said.code == 2, arguments
        assert sentence in said.err, arguments
        assert said.err.startswith("wattle: ")
        assert said.err.count("\n") == 1, said.err
        assert said.out == ""
    for arguments in (("evaluate", shop, "--port", 0), ("lint", shop, "-o", "xml"), ("lint",), ("export", shop)):
        said = wattle(*arguments)
        assert (said.code, said.out) == (2, "")
        assert "Traceback" not in said.err


def test_a_page_without_questions_or_policies_has_no_answer(wattle: Wattle, tmp_path: Path) -> None:
    path = tmp_path / "bare.yaml"
    path.write_text("name: bare")
    assert "nothing to judge" in wattle("evaluate", path).err
    assert "no NetworkPolicies to export" in wattle("export", path, "--to", "cilium").err
    assert wattle("generate", path).out == ""
