"""A cluster on one page: what is read, what is derived, and that every refusal names file, document and field."""

from ipaddress import ip_address, ip_network

import pytest

from aggregator.cluster.scenario import AddressSpan, load_scenarios, parse_scenarios, scenario_of
from aggregator.cluster.yamltext import load_documents
from aggregator.errors import InputError
from aggregator.model.cluster import ServiceBackend
from aggregator.model.endpoint import NodeEndpoint, PodEndpoint
from aggregator.model.protocol import Protocol
from aggregator.model.workload import Workload


def refusal(text):
    with pytest.raises(InputError) as refused:
        parse_scenarios(text, file="f.yaml")
    assert refused.value.file == "f.yaml"
    return refused.value.document, refused.value.field, refused.value.reason


def test_one_scenario_a_list_and_several_documents_in_either_language():
    assert [s.name for s in parse_scenarios('{"name": "a"}')] == ["a"]
    assert [s.name for s in parse_scenarios('[{"name": "a"}, {"name": "b"}]')] == ["a", "b"]
    assert [(s.name, s.document) for s in parse_scenarios("name: a\n---\n- name: b\n- name: c\n---\n")] == [
        ("a", 1),
        ("b", 2),
        ("c", 3),
    ]
    assert [s.name for s in parse_scenarios("{name: a}")] == ["a"]  # YAML that begins like JSON
    assert parse_scenarios("") == ()


def test_a_file_is_read_and_named(tmp_path):
    path = tmp_path / "page.yaml"
    path.write_text("name: a\nfoo: 1\n")
    with pytest.raises(InputError, match=r"page.yaml, document 1, field foo: unknown key 'foo'"):
        load_scenarios(path)
    path.write_text("name: a\n")
    assert load_scenarios(path)[0].file == str(path)
    with pytest.raises(InputError, match="reading the scenario"):
        load_scenarios(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("text", "field", "reason"),
    [
        ("3", "", "must be a scenario"),
        ("name: 3", "name", "valid string"),
        ("name: a\npods: [{name: p, lables: {}}]", "pods[0].lables", "unknown key 'lables'"),
        ("name: a\npods: [{name: p, lables: {}}]\nfoo: 1", "pods[0].lables", "; foo: unknown key 'foo'"),
        ("name: a\npods: [{name: p, labels: {a: 1}}]", "pods[0].labels.a", "valid string"),
        ("name: a\npods: [{name: p, ip: 1.2.3}]", "pods[0].ip", "IPv4"),
        ("name: a\npods: [{name: p, nodeIP: x}]", "pods[0].nodeIP", "IPv4"),
        ("name: a\npods: [{name: p}, {name: p}]", "pods[1].name", "stands twice"),
        ("name: a\nnamespaces: [{name: n}, {name: n}]", "namespaces", "stands twice"),
        ("name: a\npod_cidrs: [10.0.0.1/8]", "pod_cidrs", "host bits"),
        ("name: a\npolicies: [{kind: X}]", "policies[0].kind", "must be one of"),
        (
            "name: a\nexpectations: [{from: a/b, to: 'ip:1.1.1.1', port: 1, allowed: true}]",
            "expectations[0].from",
            "a/b",
        ),
        (
            "name: a\nexpectations: [{from: 'ip:1.1.1.1', to: 'ip:x', port: 1, allowed: true}]",
            "expectations[0].to",
            "'x'",
        ),
        (
            "name: a\nexpectations: [{from: 'ip:1.1.1.1', to: 'ip:1.1.1.1', port: 70000, allowed: true}]",
            "expectations[0].port",
            "65535",
        ),
        ("name: a\norder: [x/y]", "order[0]", "there is no pod"),
        ("name: a\nmatrix: {80: []}", "matrix[80].[key]", "string"),
        ("name: a\nmatrix: {'80': []}", "matrix.80", "PORT/PROTOCOL"),
        ("name: a\nmatrix: {80/tcp: []}", "matrix.80/tcp", "PORT/PROTOCOL"),
        ("name: a\nmatrix: {80/TCP: ['1']}", "matrix.80/TCP", "0 rows"),
        ("name: a\nip_history: [{ip: x}]", "ip_history[0].ip", "'x'"),
        ("name: a\nendpoints: {nobody: ['10.0.0.1:80']}", "endpoints.nobody", "namespace/service"),
        ("name: a\nendpoints: {a/b: ['10.0.0.1']}", "endpoints.a/b[0]", "ADDRESS:PORT"),
        ("name: a\nendpoints: {a/b: ['x:80']}", "endpoints.a/b[0]", "IPv4"),
    ],
)
def test_a_refusal_names_document_and_field(text, field, reason):
    document, found, said = refusal(f"name: first\n---\n{text}")
    assert (document, found) == (2, field)
    assert reason in said


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("name: a\nname: b", "key 'name' stands twice (line 2, column 1)"),
        ("a: [", "line 2, column 1"),
        ("? [a]\n: b", "a key must be a scalar"),
        ("a: \x01", "control characters"),
    ],
)
def test_broken_yaml(text, reason):
    document, _, said = refusal(text)
    assert document == 1
    assert reason in said


def test_yaml_is_read_as_the_api_server_reads_it():
    assert list(load_documents("a: 2020-01-01\nb: &x {c: 1}\nd: {<<: *x, e: 2}")) == [
        {"a": "2020-01-01", "b": {"c": 1}, "d": {"c": 1, "e": 2}}
    ]


PAGE = {
    "name": "page",
    "namespaces": [{"name": "shop", "labels": {"team": "a"}}],
    "nodes": [{"name": "one", "ip": "192.0.2.1", "pod_cidrs": ["10.0.1.0/24"]}],
    "pods": [
        {
            "namespace": "shop",
            "name": "web-1",
            "labels": {"app": "web"},
            "ips": ["10.0.0.1", "fd00::1"],
            "nodeIP": "192.0.2.1",
            "owner": {"kind": "Deployment", "name": "web"},
            "ports": [{"name": "http", "port": 8080}],
            "from": 5,
        },
        {
            "namespace": "shop",
            "name": "web-2",
            "labels": {"app": "web"},
            "ip": "10.0.0.2",
            "nodeIP": "192.0.2.2",
            "workload": {"kind": "StatefulSet", "name": "web"},
        },
        {"namespace": "shop", "name": "web-3", "labels": {"app": "web"}, "ip": "10.0.0.3", "future": True},
        {"name": "agent", "hostNetwork": True, "ip": "192.0.2.3"},
        {"name": "proxy", "hostNetwork": True, "nodeIP": "192.0.2.1"},
        {"name": "nowhere", "hostNetwork": True},
    ],
    "services": [
        {
            "namespace": "shop",
            "name": "web",
            "clusterIP": "10.96.0.7",
            "selector": {"app": "web"},
            "ports": [
                {"name": "named", "port": 80, "targetPort": "http"},
                {"name": "same", "port": 81},
                {"name": "number", "port": 82, "targetPort": 9000, "protocol": "UDP"},
            ],
        },
        {
            "namespace": "shop",
            "name": "stated",
            "clusterIP": "None",
            "ports": [{"name": "a", "port": 80, "targetPort": "http"}, {"name": "b", "port": 81, "targetPort": 7000}],
        },
        {"namespace": "shop", "name": "bare", "type": "ExternalName", "externalName": "example.org"},
    ],
    "endpoints": {
        "shop/stated": ["10.0.0.1:8080", "10.0.0.9:7000", "10.0.0.9:1"],
        "default/kubernetes": ["192.0.2.9:6443", "[fd00::9]:6443"],
        "other/manual": ["10.0.0.1:5432"],
    },
    "ip_history": [{"ip": "10.0.0.1", "pod": "shop/web-1", "from": 0, "to": 9}],
    "options": {"mode": "ingress", "scope": ["shop"]},
    "flows": [{"from": "shop/web-1", "to": "ip:10.96.0.7", "port": 80, "origin": "connect()", "ts": 3}],
}


def test_pods_owners_and_nodes():
    scenario = scenario_of(PAGE)
    web, second, future, agent, proxy, nowhere = scenario.cluster.pods
    assert web.workload == Workload(cluster="default", namespace="shop", kind="Deployment", name="web")
    assert second.workload.kind == "StatefulSet"
    assert (future.workload.kind, future.workload.name, future.future) == ("Pod", "web-3", True)
    assert web.ips == (ip_address("10.0.0.1"), ip_address("fd00::1"))
    assert [pod.node_name for pod in (web, second, future, agent, proxy, nowhere)] == [
        "one", "192.0.2.2", "", "192.0.2.3", "one", "",
    ]  # fmt: skip
    assert proxy.ips == (ip_address("192.0.2.1"),)
    assert nowhere.ips == ()
    assert [node.name for node in scenario.cluster.nodes] == ["one", "192.0.2.2", "192.0.2.3"]
    assert scenario.cluster.nodes[0].pod_cidrs == (ip_network("10.0.1.0/24"),)
    assert [namespace.name for namespace in scenario.cluster.namespaces] == ["shop", "default"]
    assert scenario.lifetimes["shop/web-1"] == (5, None)
    assert scenario.mode == "ingress"
    assert scenario.scope == ("shop",)
    assert scenario.ip_history == (
        AddressSpan(ip=ip_address("10.0.0.1"), pod="shop/web-1", start_seconds=0, end_seconds=9),
    )
    assert (scenario.flows[0].origin, scenario.flows[0].at_seconds, scenario.flows[0].result) == (
        "connect()", 3, "established",
    )  # fmt: skip


def backend(ip, port, name, pod="", protocol=Protocol.TCP):
    return ServiceBackend(ip=ip_address(ip), port=port, protocol=protocol, port_name=name, pod=pod)


def test_services_and_their_backends():
    services = {str(service): service for service in scenario_of(PAGE).cluster.services}
    assert services["shop/web"].backends == (
        backend("10.0.0.1", 8080, "named", "web-1"),
        backend("fd00::1", 8080, "named", "web-1"),
        backend("10.0.0.1", 81, "same", "web-1"),
        backend("fd00::1", 81, "same", "web-1"),
        backend("10.0.0.2", 81, "same", "web-2"),
        backend("10.0.0.1", 9000, "number", "web-1", Protocol.UDP),
        backend("fd00::1", 9000, "number", "web-1", Protocol.UDP),
        backend("10.0.0.2", 9000, "number", "web-2", Protocol.UDP),
    )
    assert services["shop/stated"].cluster_ips == ()
    assert services["shop/stated"].backends == (
        backend("10.0.0.1", 8080, "a", "web-1"),
        backend("10.0.0.9", 7000, "b"),
        backend("10.0.0.9", 1, "a"),  # no port fits: it may stand behind any
        backend("10.0.0.9", 1, "b"),
    )
    assert services["shop/bare"].backends == ()
    assert services["shop/bare"].external_name == "example.org"
    api = services["default/kubernetes"]
    assert api.cluster_ips == (ip_address("10.96.0.1"),)
    assert [(port.port, port.target_port) for port in api.ports] == [(443, 6443)]
    assert api.backends == (backend("192.0.2.9", 6443, "https"), backend("fd00::9", 6443, "https"))
    manual = services["other/manual"]
    assert manual.cluster_ips == ()
    assert manual.backends == (backend("10.0.0.1", 5432, ""),)


def test_the_api_server_has_the_first_address_of_the_stated_cidr():
    scenario = scenario_of(
        {"name": "a", "service_cidrs": ["172.20.0.0/16"], "endpoints": {"default/kubernetes": ["1.1.1.1:1"]}}
    )
    assert scenario.cluster.services[0].cluster_ips == (ip_address("172.20.0.1"),)


def test_ends_are_resolved_by_who_has_the_address_now():
    scenario = scenario_of(PAGE)
    assert scenario.end("shop/web-1") is scenario.cluster.pods[0]
    connection = scenario.connection(scenario.flows[0].traffic)
    assert isinstance(connection.src, PodEndpoint)
    assert connection.dst.service.name == "web"
    by_node = scenario_of(
        {
            **PAGE,
            "must_deny": [{"from": "shop/web-1", "to": "ip:192.0.2.1", "port": 1}],
            "extra_must_allow": [{"from": "shop/web-1", "to": "shop/web-2", "port": 1}],
        }
    )
    assert isinstance(by_node.connection(by_node.must_deny[0]).dst, NodeEndpoint)
    assert [str(traffic) for traffic in by_node.must_allow] == ["shop/web-1 -> shop/web-2 TCP/1"]
    with pytest.raises(InputError, match="there is no pod 'shop/none'"):
        scenario.end("shop/none")
    with pytest.raises(InputError, match="is not an address"):
        scenario.end("ip:none")


def test_a_matrix_may_be_written_in_strings_or_lists():
    pods = {
        "pods": [{"name": "a", "ip": "10.0.0.1"}, {"name": "b", "ip": "10.0.0.2"}],
        "order": ["default/a", "default/b"],
    }
    one = scenario_of({"name": "m", **pods, "matrix": {"80/TCP": ["-1", "0-"]}})
    two = scenario_of({"name": "m", **pods, "matrix": {"80/TCP": [["-", 1], [0, "-"]]}})
    assert one.matrix == two.matrix == {(Protocol.TCP, 80): ("-1", "0-")}


def test_a_refusal_that_knows_its_place_keeps_it():
    scenario = scenario_of({"name": "a"}, file="f", document=4)
    refused = scenario.refuse("no", "here")
    assert (refused.file, refused.document, refused.field) == ("f", 4, "here")
