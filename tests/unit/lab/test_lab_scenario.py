"""The scenario file: what is refused, and in which words; and that a scenario's truth is what its own calls imply."""

import re
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from lab.errors import ScenarioError
from lab.scenario import Scenario, load, pod_template
from lab.settings import Program, TruthLink
from lab.workload import DEFAULT_PORTS

LAB = Path(__file__).parents[3] / "lab"
SCENARIOS = sorted(LAB.glob("*.yaml"))
GOOD = """\
lab:
  name: tiny
  select: shop/Deployment/web
  run:
    shop/Deployment/web: {containers: {web: {listen: ["http:8080"]}}}
    shop/CronJob/tidy: {every_seconds: 5, containers: {tidy: {lifetime_seconds: 1, calls: ["http://web"]}}}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  selector: {matchLabels: {app: web}}
  template: {metadata: {labels: {app: web}}, spec: {containers: [{name: web}]}}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: tidy, namespace: shop}
spec:
  schedule: "* * * * *"
  jobTemplate: {spec: {template: {metadata: {labels: {app: tidy}}, spec: {containers: [{name: tidy}]}}}}
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(text)
    return path


def test_a_good_file_loads(tmp_path: Path) -> None:
    scenario = load(written(tmp_path, GOOD))
    assert [key for key, _ in scenario.workloads()] == ["shop/Deployment/web", "shop/CronJob/tidy"]
    assert scenario.node_names() == ["node-1"]


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (
            "containers: [{name: web}]",
            "containers: []",
            r"document 3 \(Deployment web\), spec\.template\.spec\.containers",
        ),
        ("schedule: ", "timetable: ", r"document 5 \(CronJob tidy\), spec\.schedule: Field required; add it"),
        ("{port: 80,", "{port: 80000,", r"document 4 \(Service web\), spec\.ports\.0\.port: .*65535"),
        ("name: tiny", "name: Tiny_", r"document 1, lab\.name: .*; write it in that form"),
        ("http:8080", "https:8080", r"document 1, lab\.run\.shop/Deployment/web\.containers\.web\.listen\.0"),
        ("lifetime_seconds: 1, ", "", r"lab\.run\[shop/CronJob/tidy\]\.containers\.tidy\.lifetime_seconds is missing"),
        ("lifetime_seconds: 1", "lifetime: 1", r"remove it, or correct its spelling"),
        ("every_seconds: 5, ", "", r"every_seconds: a CronJob needs it"),
        (
            "select: shop/Deployment/web",
            "select: shop/Deployment/wep",
            r"known workloads: shop/CronJob/tidy, shop/Depl",
        ),
        ("{containers: {web:", "{containers: {app:", r"names \['app'\], but the pods have \['web'\]; make them agree"),
        (
            "metadata: {name: shop}",
            "metadata: {name: shoq}",
            r"Deployment shop web: its namespace is not declared; add",
        ),
        ("{app: web}}, spec", "{app: wed}}, spec", r"does not match the labels of spec\.template; make them agree"),
        ("{selector: {app: web}", "{clusterIP: 1.2.3.4, selector: {app: web}", r"no address of lab\.cidrs\.services"),
        ("{selector: {app: web}", "{clusterIP: any, selector: {app: web}", r"no address of lab\.cidrs\.services"),
        ("kind: Namespace", "kind Namespace", r"not YAML: .*correct that line"),
        ("lab:\n  name", "lap:\n  name", r"document 1 \(object without kind .*apiVersion: Field required; add it"),
        ("\n  run:", "\n  cidrs: {pods: [10.0.0.0/28]}\n  run:", r"lab\.cidrs: pods: 10\.0\.0\.0/28 is too small"),
        ('["http://web"]', '[{to: "http://web", keep: true}]', r"only tcp:// and redis:// calls can be kept open"),
        (
            "spec: {containers: [{name: web}]}",
            "spec: {initContainers: [{name: i}], containers: [{name: web}]}",
            "remove",
        ),
        ('{listen: ["http:8080"]}', "{}", r"give exactly one of `command`, `dns`, or `listen`"),
    ],
)
def test_an_error_names_the_place_and_the_way_out(tmp_path: Path, old: str, new: str, sentence: str) -> None:
    assert old in GOOD
    path = written(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(ScenarioError, match=sentence) as raised:
        load(path)
    assert str(raised.value).startswith(str(path))
    assert "\n" not in str(raised.value)


def test_a_missing_file_and_a_file_without_lab_section(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="give the path of a scenario"):
        load(tmp_path / "none.yaml")
    with pytest.raises(ScenarioError, match="has no `lab:` section; add"):
        load(written(tmp_path, GOOD.partition("---\n")[2]))
    with pytest.raises(ScenarioError, match="stands there twice; remove one"):
        load(written(tmp_path, GOOD + "---\n" + GOOD.split("---\n")[1]))


# ---- a scenario's own truth


def implied(scenario: Scenario) -> tuple[set[TruthLink], set[str]]:
    """The links that the calls in the file must make, worked out from its Services; and who runs a real program."""
    links: set[TruthLink] = set()
    real: set[str] = set()
    dns = next((k, p.dns) for k, r in scenario.lab.run.items() for p in r.containers.values() if p.dns)
    for source, run in scenario.lab.run.items():
        for name, program in run.containers.items():
            if program.command:
                real.add(source)
            for call in program.calls:
                parts = urlsplit(call.to)
                process = process_of(program, name)
                if parts.scheme in {"dns", "dns+tcp"}:
                    protocol = "TCP" if parts.scheme == "dns+tcp" else "UDP"
                    links.add(link(source, dns[0], protocol, dns[1] or 0, process))
                    continue
                if call.expect == "answer":
                    target, port = resolved(scenario, source, call.to)
                    protocol = "UDP" if parts.scheme in {"udp", "statsd"} else "TCP"
                    links.add(link(source, target, protocol, port, process))
                if not re.match(r"[0-9.$]", parts.netloc):
                    links.add(link(source, dns[0], "UDP", dns[1] or 0, process))
    return links, real


def link(source: str, target: str, protocol: str, port: int, process: str) -> TruthLink:
    return TruthLink.model_validate(
        {"from": source, "to": target, "protocol": protocol, "port": port, "process": process}
    )


def process_of(program: Program, container: str) -> str:
    return program.process or container[:15]


def resolved(scenario: Scenario, source: str, target: str) -> tuple[str, int]:
    parts = urlsplit(target)
    port = parts.port or DEFAULT_PORTS[parts.scheme]
    host = parts.netloc.partition(":")[0]
    if host == "$(HOST_IP)":
        return next(key for key in scenario.lab.run if listens_on_node(scenario, key, port)), port
    try:
        return f"address/{ip_address(host)}", port
    except ValueError:
        pass
    world = [w for w in scenario.lab.world if host in w.names]
    if world:
        return f"address/{world[0].address}", port
    labels = host.split(".")
    namespace = source.split("/", maxsplit=1)[0]
    for service in scenario.of_kind("Service"):
        meta = service["metadata"]
        full = [meta["name"], meta["namespace"]]
        if labels[:2] == full or (meta["namespace"] == namespace and meta["name"] in (labels[0], *labels[1:2])):
            return backend(scenario, service, port)
    raise AssertionError(f"{target}: no Service of that name")


def listens_on_node(scenario: Scenario, key: str, port: int) -> bool:
    workload = dict(scenario.workloads())[key]
    spec = pod_template(workload)["spec"]
    ports = [p["containerPort"] for c in spec["containers"] for p in c.get("ports", [])]
    return bool(spec.get("hostNetwork")) and port in ports


def backend(scenario: Scenario, service: dict, port: int) -> tuple[str, int]:
    found = next(p for p in service["spec"]["ports"] if p["port"] == port)
    for key, workload in scenario.workloads():
        template = pod_template(workload)
        same = key.split("/")[0] == service["metadata"]["namespace"]
        if same and service["spec"]["selector"].items() <= template["metadata"]["labels"].items():
            wanted = found.get("targetPort", port)
            named = {
                p.get("name"): p["containerPort"] for c in template["spec"]["containers"] for p in c.get("ports", [])
            }
            return key, named.get(wanted, wanted)
    raise AssertionError(f"{service['metadata']['name']}: selects no workload")


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda p: p.stem)
def test_the_truth_is_what_the_calls_imply(path: Path) -> None:
    scenario = load(path)
    expected, real_programs = implied(scenario)
    said = set(scenario.lab.truth)
    assert said, "a scenario without a truth checks nothing"
    assert expected <= said
    assert {item.source for item in said - expected} <= real_programs
