"""Generation as a person meets it: rows, decisions, general rules, DNS, nodes, the API server, findings."""

import gc
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from aggregator.model.cidrs import CidrRole, CidrSource
from aggregator.model.cluster import Service, ServiceBackend, ServicePort, WorkloadRecord
from aggregator.model.decision import (
    Alias,
    AliasDecision,
    Choice,
    ClusterCIDRs,
    Decision,
    Decisions,
    DefaultDeny,
    DirectionDecision,
    GeneralRule,
    LabelDecision,
    LabelLists,
    LinkDecision,
    PolicyRemoval,
    PortRangeConsent,
    TypedCIDR,
    TypedCIDRDecision,
)
from aggregator.model.link import Confidence
from aggregator.model.networkpolicy import IPBlock, LabelSelector, NetworkPolicy, PolicyPort, Rule, SelectorPeer
from aggregator.model.proposal import Generation, Origin, Reason
from aggregator.model.protocol import Direction
from aggregator.model.workload import Workload
from aggregator.policy.generation.addresses import Addresses, cidrs_of
from aggregator.policy.generation.dns import find_dns
from tests.unit.policy_gen.town import (
    AGENT,
    API,
    API_SERVER,
    BARE,
    DB,
    DNS,
    DNS_POD,
    KUBE_DNS,
    NODES,
    TCP,
    TOWN,
    UDP,
    WEB,
    address,
    link,
    made,
    pod,
    seen,
    workload,
)

INGRESS, EGRESS = Direction.INGRESS, Direction.EGRESS
HOST = address("203.0.113.9")
HTTP = (PolicyPort(port=8080),)


def policy_of(generation: Generation, owner: Workload) -> NetworkPolicy:
    (policy,) = generation.by_workload[owner].policies
    return policy


def reasons(generation: Generation) -> dict[str, Reason]:
    return {str(row.observed.link): row.reason for row in generation.left_out}


def codes(generation: Generation) -> set[str]:
    return {finding.code for finding in generation.findings}


def blocks(rules: tuple[Rule, ...]) -> list[str]:
    return [str(peer.cidr) for rule in rules for peer in rule.peers if isinstance(peer, IPBlock)]


def rule_for(owner: Workload, direction: Direction, rule: GeneralRule | None) -> DirectionDecision:
    return DirectionDecision(workload=owner, direction=direction, rule=rule)


def typed(cidr: str, owner: Workload = WEB, direction: Direction = EGRESS, **more: object) -> TypedCIDRDecision:
    return TypedCIDRDecision(
        cidr=TypedCIDR(workload=owner, direction=direction, cidr=ip_network(cidr), **more),  # type: ignore[arg-type]
        choice=Choice.INCLUDE,
    )


def test_own_namespace_is_a_pod_selector_alone_another_one_is_named() -> None:
    generation = made(seen(WEB, API, 8080), seen(WEB, DB, 5432))
    near, far = policy_of(generation, WEB).egress
    assert near.peers == (SelectorPeer(pod_selector=LabelSelector(match_labels=(("app", "api"),))),)
    assert far.peers == (
        SelectorPeer(
            pod_selector=LabelSelector(match_labels=(("app", "db"),)),
            namespace_selector=LabelSelector(match_labels=(("kubernetes.io/metadata.name", "data"),)),
        ),
    )
    assert policy_of(generation, DB).policy_types == (INGRESS,)
    assert policy_of(generation, WEB).policy_types == (EGRESS,)
    assert "direction-left-open" in codes(generation)


def test_dns_is_synthesised_on_the_pods_own_port_with_both_protocols() -> None:
    generation = made(seen(WEB, API, 8080), seen(DNS, WEB, 80), seen(WEB, DNS, 5353, UDP), cluster=TOWN)
    dns = policy_of(generation, WEB).egress[-1]
    assert dns.ports == (PolicyPort(port=5353), PolicyPort(protocol=UDP, port=5353))
    assert Origin.DNS in {item.origin for item in generation.by_workload[WEB].synthesised}
    callers = policy_of(generation, DNS).ingress
    assert [rule.peers for rule in callers] == [(SelectorPeer(namespace_selector=LabelSelector()),)]
    assert all(rule.ports != dns.ports for rule in policy_of(generation, DNS).egress)


def test_a_person_may_exclude_dns() -> None:
    asks = seen(WEB, DNS, 5353, UDP)
    generation = made(asks, seen(WEB, API, 80), cluster=TOWN, decisions=[_exclude(asks)])
    assert len(policy_of(generation, WEB).egress) == 1
    assert "dns-excluded" in codes(generation)


def _exclude(row: object) -> LinkDecision:
    return LinkDecision(link=row.link, choice=Choice.EXCLUDE)  # type: ignore[attr-defined]


def _include(row: object) -> LinkDecision:
    return LinkDecision(link=row.link, choice=Choice.INCLUDE)  # type: ignore[attr-defined]


def test_node_local_dns_and_the_address_that_it_takes_over() -> None:
    cache = address("169.254.20.10")
    generation = made(seen(WEB, cache, 53, UDP), cluster=TOWN)
    assert blocks(policy_of(generation, WEB).egress) == ["10.96.0.10/32", "169.254.20.10/32"]
    assert not generation.left_out
    excluded = made(seen(WEB, cache, 53, UDP), cluster=TOWN, decisions=[_exclude(seen(WEB, cache, 53, UDP))])
    assert "dns-excluded" in codes(excluded)


def test_node_local_dns_by_its_pods_alone() -> None:
    cache = pod(
        workload("node-local-dns", "kube-system", "DaemonSet"),
        "192.0.2.11",
        labels=(("k8s-app", "node-local-dns"),),
        host_network=True,
    )
    found = find_dns(replace(TOWN, pods=(*TOWN.pods, cache)))
    assert found.found
    assert [str(ip) for ip in found.caches] == ["169.254.20.10", "169.254.25.10", "10.96.0.10"]


def test_dns_outside_of_pods_and_on_nodes() -> None:
    def backed(*ips: str) -> Service:
        backends = tuple(ServiceBackend(ip=ip_address(ip), port=53, protocol=UDP, port_name="dns") for ip in ips)
        return replace(KUBE_DNS, backends=backends)

    outside = replace(BARE, services=(backed("198.51.100.53"),))
    assert blocks(policy_of(made(seen(WEB, API, 80), cluster=outside), WEB).egress) == ["198.51.100.53/32"]
    row = seen(WEB, address("198.51.100.53"), 53, UDP)
    assert made(row, cluster=outside).by_workload[WEB].included[0].reason is Reason.DNS
    assert "dns-excluded" in codes(made(row, cluster=outside, decisions=[_exclude(row)]))
    on_nodes = replace(BARE, services=(backed("192.0.2.12"),))
    generation = made(seen(WEB, NODES, 53, UDP), cluster=on_nodes)
    assert blocks(policy_of(generation, WEB).egress) == ["192.0.2.11/32", "192.0.2.12/32"]
    hosted = pod(DNS, "192.0.2.12", labels=(("k8s-app", "kube-dns"),), host_network=True)
    assert find_dns(replace(BARE, pods=(*BARE.pods, hosted))).on_nodes == {(UDP, 53), (TCP, 53)}


@pytest.mark.parametrize(("target", "port"), [("dns", 5353), (1053, 1053), (None, 53)])
def test_dns_by_its_selector_while_it_has_no_endpoints(target: object, port: int) -> None:
    ports = (ServicePort(name="dns", port=53, protocol=UDP, target_port=target), KUBE_DNS.ports[1])  # type: ignore[arg-type]
    found = find_dns(replace(TOWN, services=(replace(KUBE_DNS, backends=(), ports=ports),)))
    assert found.ports_of(DNS) == {(UDP, port), (TCP, port)}
    assert not find_dns(replace(TOWN, pods=(), services=(replace(KUBE_DNS, backends=(), selector=()),))).found


def test_dns_by_its_pods_where_there_is_no_service() -> None:
    assert find_dns(replace(TOWN, services=())).ports_of(DNS) == {(UDP, 5353), (TCP, 5353)}
    plain = replace(DNS_POD, ports=())
    assert find_dns(replace(TOWN, services=(), pods=(plain,))).ports_of(DNS) == {(UDP, 53), (TCP, 53)}


def test_dns_servers_that_no_selector_separates() -> None:
    twin = pod(workload("twin", "kube-system"), "10.244.0.54", labels=(("k8s-app", "kube-dns"),))
    generation = made(seen(WEB, API, 80), cluster=replace(TOWN, pods=(*TOWN.pods, twin)))
    assert {"dns-not-separable", "dns-not-found"} <= codes(generation)
    assert "dns-not-found" not in codes(made(seen(WEB, API, 80), synthesise_dns=False))


def test_tcp_goes_beside_udp_to_any_dns_server() -> None:
    resolver = address("198.51.100.53")
    rows = (seen(WEB, resolver, 53, UDP), seen(WEB, resolver, 53, TCP, established=False))
    generation = made(*rows, include_external=True)
    assert policy_of(generation, WEB).egress[0].ports == (PolicyPort(port=53), PolicyPort(protocol=UDP, port=53))
    assert not generation.left_out
    refused = made(*rows, include_external=True, decisions=[_exclude(rows[1])])
    assert policy_of(refused, WEB).egress[0].ports == (PolicyPort(protocol=UDP, port=53),)


def test_nodes_are_all_nodes_and_a_host_network_pod_is_nodes() -> None:
    generation = made(seen(NODES, WEB, 8080), seen(AGENT, API, 80), seen(WEB, AGENT, 9100))
    assert blocks(policy_of(generation, WEB).ingress) == ["192.0.2.11/32", "192.0.2.12/32"]
    assert blocks(policy_of(generation, API).ingress) == ["192.0.2.11/32", "192.0.2.12/32"]
    assert blocks(policy_of(generation, WEB).egress) == ["192.0.2.11/32", "192.0.2.12/32"]
    assert AGENT not in generation.by_workload
    assert "snat-source-is-node" in codes(generation)
    lost = made(seen(NODES, WEB, 80), seen(AGENT, API, 80), cluster=replace(BARE, nodes=()))
    assert set(reasons(lost).values()) == {Reason.PEER_UNKNOWN}


def test_the_api_server_by_all_of_its_endpoints() -> None:
    generation = made(seen(WEB, API_SERVER, 443), seen(API_SERVER, API, 9443))
    (rule,) = policy_of(generation, WEB).egress
    assert blocks((rule,)) == ["192.0.2.11/32", "198.51.100.1/32"]
    assert rule.ports == (PolicyPort(port=6443),)
    assert policy_of(generation, API).ingress[0].ports == (PolicyPort(port=9443),)
    lost = made(seen(WEB, API_SERVER, 443), cluster=replace(BARE, services=()))
    assert set(reasons(lost).values()) == {Reason.PEER_UNKNOWN}


def test_probes_attempts_and_guesses_are_left_out() -> None:
    generation = made(
        seen(NODES, WEB, 8080, same_node_probe=True),
        seen(WEB, DB, 5433, established=False),
        seen(API, WEB, 43512, confidence=Confidence.LOW),
        seen(address("127.0.0.6"), WEB, 80),
    )
    assert sorted(reasons(generation).values()) == sorted(
        [Reason.SAME_NODE_PROBE, Reason.FAILED_ATTEMPTS, Reason.LOW_CONFIDENCE, Reason.LOOPBACK]
    )
    assert {"failed-attempts", "low-confidence"} <= codes(generation)
    assert not policy_of(generation, WEB).ingress
    probe = seen(NODES, WEB, 8080, same_node_probe=True)
    assert WEB not in made(probe).by_workload
    everything = made(probe, decisions=[rule_for(WEB, INGRESS, GeneralRule.ALLOW_ALL)])
    assert set(reasons(everything).values()) == {Reason.SAME_NODE_PROBE}


def test_an_outside_address_waits_for_a_person() -> None:
    row = seen(WEB, HOST, 443)
    assert set(reasons(made(row)).values()) == {Reason.UNRESOLVED}
    assert "unresolved-ip" in codes(made(row))
    named = Alias(name="x", networks=(ip_network("203.0.113.9"),), allowed=True)
    for decided in (
        made(row, decisions=[_include(row)]),
        made(row, include_external=True),
        made(
            row,
            decisions=[AliasDecision(name="x", alias=named)],
        ),
        made(row, decisions=[typed("203.0.113.9/32", port=443)]),
    ):
        assert blocks(policy_of(decided, WEB).egress) == ["203.0.113.9/32"]
        assert not decided.left_out
    incomplete = replace(BARE, cidrs_complete=False)
    for options in ({}, {"include_external": True}):
        assert "cluster-subnets-incomplete" in codes(made(row, cluster=incomplete, **options))


def test_addresses_of_the_cluster_never_become_ip_blocks() -> None:
    for text in ("10.244.9.9", "10.96.7.7", "192.0.2.12", "10.244.9.0/24"):
        row = seen(WEB, address(text), 80)
        generation = made(row, include_external=True, decisions=[_include(row)])
        assert set(reasons(generation).values()) == {Reason.INTERNAL_UNRESOLVED}
    by_hand = ClusterCIDRs(
        pod_cidrs=(ip_network("10.0.0.0/16"),),
        service_cidrs=(ip_network("10.1.0.0/16"),),
        node_cidrs=(ip_network("10.2.0.0/16"),),
    )
    neighbour = seen(WEB, address("10.2.0.7"), 5432)
    generation = made(neighbour, decisions=[by_hand], include_external=True)
    assert set(reasons(generation).values()) == {Reason.INTERNAL_UNRESOLVED}
    assert not made(neighbour, decisions=[by_hand, _include(neighbour)]).left_out


def test_a_rolled_up_network_is_an_end_like_an_address() -> None:
    generation = made(seen(WEB, address("203.0.113.0/28"), 443), include_external=True)
    assert blocks(policy_of(generation, WEB).egress) == ["203.0.113.0/28"]


def test_an_alias_opens_all_of_its_addresses_but_those_excluded() -> None:
    lan = Alias(name="lan", networks=(ip_network("203.0.113.8/30"),), allowed=True)
    rows = (seen(WEB, HOST, 443), seen(WEB, address("203.0.113.10"), 443), seen(WEB, address("203.0.113.10"), 80))
    generation = made(*rows, decisions=[AliasDecision(name="lan", alias=lan), _exclude(rows[1])])
    blocked = [p for rule in policy_of(generation, WEB).egress for p in rule.peers]
    assert IPBlock(cidr=ip_network("203.0.113.8/30"), excepts=(ip_network("203.0.113.10/32"),)) in blocked
    assert IPBlock(cidr=ip_network("203.0.113.10/32")) in blocked
    assert {w.origin for w in generation.by_workload[WEB].widenings} == {Origin.ALIAS}
    silent = replace(lan, allowed=False)
    assert set(reasons(made(rows[0], decisions=[AliasDecision(name="lan", alias=silent)])).values()) == {
        Reason.ALIAS_NOT_ALLOWED
    }
    half = Alias(name="half", networks=(ip_network("203.0.113.0/29"),), allowed=True)
    wide = seen(WEB, address("203.0.113.0/28"), 443)
    generation = made(wide, include_external=True, decisions=[AliasDecision(name="half", alias=half)])
    assert blocks(policy_of(generation, WEB).egress) == ["203.0.113.0/28"]


def test_typed_cidrs_spare_what_is_excluded_and_reach_metadata_only_when_seen() -> None:
    row = seen(WEB, HOST, 443)
    generation = made(row, decisions=[typed("0.0.0.0/0", protocol=None), _exclude(row)])
    (rule,) = policy_of(generation, WEB).egress
    assert rule.ports == ()
    (peer,) = rule.peers
    assert isinstance(peer, IPBlock)
    assert [str(n) for n in peer.excepts] == ["10.96.0.0/12", "10.244.0.0/16", "169.254.0.0/16", "203.0.113.9/32"]
    metadata = seen(WEB, address("169.254.169.254"), 80)
    (rule,) = policy_of(made(metadata, decisions=[typed("0.0.0.0/0", port=None)]), WEB).egress
    (peer,) = rule.peers
    assert isinstance(peer, IPBlock)
    assert ip_network("169.254.0.0/16") not in peer.excepts
    back = [typed("0.0.0.0/0"), replace(typed("0.0.0.0/0"), choice=Choice.EXCLUDE)]
    assert WEB not in made(decisions=back).by_workload
    texts = {
        item.text
        for one in (typed("203.0.113.0/24", port=80, end_port=90), typed("203.0.113.0/24"))
        for item in made(decisions=[one]).by_workload[WEB].synthesised
    }
    assert texts == {
        "a person typed 203.0.113.0/24, TCP 80-90",
        "a person typed 203.0.113.0/24, every TCP port",
    }


def test_a_typed_cidr_that_covers_nodes_takes_their_row() -> None:
    row = seen(NODES, WEB, 8080, confidence=Confidence.LOW)
    generation = made(row, decisions=[typed("192.0.2.0/24", direction=INGRESS, port=8080)])
    assert generation.by_workload[WEB].included[0].reason is Reason.TYPED_CIDR


@pytest.mark.parametrize(
    ("rule", "included"),
    [
        (GeneralRule.BLOCK_ALL, set()),
        (GeneralRule.ALLOW_NAMESPACE, {API}),
        (GeneralRule.ALLOW_ALL, {API, DB}),
        (GeneralRule.OBSERVED, {API, DB}),
    ],
)
def test_general_rules_hold_at_both_ends(rule: GeneralRule, included: set[Workload]) -> None:
    generation = made(seen(WEB, API, 80), seen(WEB, DB, 5432), decisions=[rule_for(WEB, EGRESS, rule)])
    assert {row.observed.link.dst for row in generation.by_workload[WEB].included} == included
    for server in (API, DB):
        assert bool(policy_of(generation, server).ingress) is (server in included)
    blocked = made(seen(WEB, API, 80), decisions=[rule_for(API, INGRESS, GeneralRule.BLOCK_ALL)])
    assert set(reasons(blocked).values()) == {Reason.BLOCKED_INGRESS}
    assert not policy_of(blocked, WEB).egress


def test_dns_stays_under_allow_namespace_and_goes_under_block_all() -> None:
    rows = (seen(WEB, DNS, 5353, UDP), seen(WEB, AGENT, 9100))
    near = made(*rows, cluster=TOWN, decisions=[rule_for(WEB, EGRESS, GeneralRule.ALLOW_NAMESPACE)])
    assert [len(rule.ports) for rule in policy_of(near, WEB).egress] == [0, 2]
    assert reasons(near) == {str(rows[1].link): Reason.BLOCKED_EGRESS}
    none = made(*rows, cluster=TOWN, decisions=[rule_for(WEB, EGRESS, GeneralRule.BLOCK_ALL)])
    assert not policy_of(none, WEB).egress
    everything = made(rows[0], cluster=TOWN, decisions=[rule_for(WEB, EGRESS, GeneralRule.ALLOW_ALL)])
    assert policy_of(everything, WEB).egress == (Rule(),)
    kept = [rule_for(WEB, EGRESS, GeneralRule.BLOCK_ALL), typed("203.0.113.0/24")]
    assert blocks(policy_of(made(seen(WEB, HOST, 443), decisions=kept), WEB).egress) == ["203.0.113.0/24"]


def test_an_unknown_address_under_allow_all_is_allowed_by_the_rule() -> None:
    generation = made(seen(WEB, HOST, 443), decisions=[rule_for(WEB, EGRESS, GeneralRule.ALLOW_ALL)])
    assert generation.by_workload[WEB].included[0].reason is Reason.GENERAL_RULE


def test_a_dynamic_range_by_consent_without_what_is_excluded() -> None:
    rows = [seen(WEB, DB, port) for port in (21, 50012, 50444, 50871, 50999, 51003)]
    assert "dynamic-port-range" in codes(made(*rows))
    consent = PortRangeConsent(src=WEB, dst=DB, protocol=TCP, first=50000, last=51100)
    generation = made(*rows, decisions=[consent, LinkDecision(link=link(WEB, DB, 50500), choice=Choice.EXCLUDE)])
    assert "dynamic-port-range" not in codes(generation)
    assert policy_of(generation, WEB).egress[0].ports == (
        PolicyPort(port=21),
        PolicyPort(port=50000, end_port=50499),
        PolicyPort(port=50501, end_port=51100),
    )
    late = made(seen(WEB, DB, 50001, established=False), decisions=[consent])
    assert late.by_workload[WEB].included[0].reason is Reason.PORT_RANGE
    outside = [seen(WEB, HOST, port) for port in (50012, 50444, 50871, 50999, 51003)]
    assert "dynamic-port-range" in codes(made(*outside, include_external=True))


def test_a_budget_of_prefixes_is_listed_or_refused() -> None:
    rows = [seen(WEB, address(f"203.0.113.{n}"), 443) for n in (0, 3)]
    generation = made(*rows, include_external=True, cidr_budget=1)
    assert blocks(policy_of(generation, WEB).egress) == ["203.0.113.0/30"]
    (widening,) = generation.by_workload[WEB].widenings
    assert (widening.origin, widening.extra) == (Origin.CIDR_BUDGET, 2)
    barred = seen(WEB, address("203.0.113.1"), 22, established=False)
    refused = made(*rows, barred, include_external=True, cidr_budget=1)
    assert "cidr-budget-too-small" in codes(refused)
    assert blocks(policy_of(refused, WEB).egress) == ["203.0.113.0/32", "203.0.113.3/32"]


def test_what_no_selector_separates_is_reported_and_not_opened() -> None:
    raw, twin = workload("raw", kind="Pod"), workload("twin")
    gone = workload("gone")
    pods = (*BARE.pods, pod(raw, "10.244.1.9", labels=()), pod(twin, "10.244.1.8", labels=(("app", "api"),)))
    generation = made(seen(raw, WEB, 80), seen(API, DB, 5432), seen(gone, DB, 5432), cluster=replace(BARE, pods=pods))
    assert {"workload-without-usable-labels", "selector-not-separable", "workload-unknown", "peer-unknown"} <= codes(
        generation
    )
    assert set(generation.by_workload) == {WEB, DB}
    assert not policy_of(generation, DB).ingress
    assert all(row.denied for row in generation.left_out)


def test_label_lists_and_volatile_selectors() -> None:
    only = LabelDecision(workload_labels=LabelLists(include=("tier",)))
    assert "workload-without-usable-labels" in codes(made(seen(WEB, API, 80), decisions=[only]))
    split = replace(
        BARE,
        pods=tuple(replace(p, labels=(("app", "svc"), ("version", f"{n}.0.0"))) for n, p in enumerate(BARE.pods[1:4])),
    )
    assert "volatile-selector" in codes(made(seen(WEB, API, 80), cluster=split))


def test_nothing_seen_makes_no_policy_unless_asked() -> None:
    assert not made().proposals
    asked = made(decisions=[rule_for(WEB, INGRESS, GeneralRule.BLOCK_ALL)])
    assert policy_of(asked, WEB).policy_types == (INGRESS,)
    gone = made(decisions=[rule_for(AGENT, INGRESS, GeneralRule.BLOCK_ALL)])
    assert not gone.proposals
    deny = [DefaultDeny(namespace=n, direction=INGRESS) for n in ("app", "data")]
    denied = made(decisions=[*deny, replace(deny[1], choice=Choice.EXCLUDE)])
    (policy,) = denied.default_denies
    assert (policy.namespace, policy.pod_selector, policy.policy_types) == ("app", LabelSelector(), (INGRESS,))
    assert denied.policies == denied.default_denies
    assert not made(decisions=deny, namespaces=frozenset({"mon"})).default_denies


def test_scope_and_mode() -> None:
    row = seen(WEB, DB, 5432)
    assert set(made(row, namespaces=frozenset({"data"})).by_workload) == {DB}
    assert set(made(row, workloads=frozenset({WEB})).by_workload) == {WEB}
    assert set(made(row, directions=frozenset({INGRESS})).by_workload) == {DB}
    closed = made(row, close_unseen=frozenset(Direction))
    assert policy_of(closed, DB).policy_types == (INGRESS, EGRESS)
    hidden = seen(WEB, DB, 22, established=False)
    assert not made(hidden, namespaces=frozenset({"mon"})).left_out[0].denied


def test_a_row_that_a_person_included_before_it_was_seen() -> None:
    row = seen(WEB, DB, 5432)
    generation = made(seen(WEB, API, 80), decisions=[_include(row), _exclude(seen(WEB, API, 80))])
    assert generation.by_workload[DB].included[0].reason is Reason.DECIDED
    assert "decided-not-seen" in codes(generation)


def test_the_evidence_stands_in_an_annotation_only_when_asked() -> None:
    row = seen(WEB, API, 80)
    assert not policy_of(made(row), WEB).annotations
    ((key, text),) = policy_of(made(row, annotate_evidence=True), WEB).annotations
    assert key == "wattle/evidence"
    assert '"connections": 3' in text
    many = [seen(WEB, address(f"203.0.{n // 250}.{n % 250}"), 443) for n in range(900)]
    long = policy_of(made(*many, annotate_evidence=True, include_external=True, max_peers=5000), WEB)
    assert len(dict(long.annotations)["wattle/evidence"]) <= 64 * 1024


def test_one_link_twice_is_one_row() -> None:
    weak = seen(WEB, API, 80, established=False)
    for rows in ((weak, seen(WEB, API, 80)), (seen(WEB, API, 80), weak)):
        (taken,) = made(*rows).by_workload[WEB].included
        assert taken.observed.established


def test_a_workload_between_two_runs_is_known_by_its_record() -> None:
    cron = workload("report", kind="CronJob")
    record = WorkloadRecord(workload=cron, template_labels=(("app", "report"),), schedule="0 3 * * *")
    on_host = WorkloadRecord(workload=workload("host"), template_labels=(("app", "h"),), host_network=True)
    cluster = replace(BARE, workloads=(record, on_host))
    generation = made(seen(cron, DB, 5432), seen(workload("host"), WEB, 80), cluster=cluster)
    assert policy_of(generation, cron).pod_selector == LabelSelector(match_labels=(("app", "report"),))
    assert blocks(policy_of(generation, WEB).ingress) == ["192.0.2.11/32", "192.0.2.12/32"]


def test_decisions_are_folded_in_order() -> None:
    one, two = link(WEB, API, 80), link(WEB, DB, 5432)
    made_in_order: list[Decision] = [
        LinkDecision(link=one, choice=Choice.INCLUDE),
        LinkDecision(link=two, choice=Choice.EXCLUDE),
        LinkDecision(link=one, choice=Choice.EXCLUDE),
        LinkDecision(link=two, choice=None),
        rule_for(WEB, EGRESS, GeneralRule.ALLOW_ALL),
        rule_for(WEB, EGRESS, None),
        AliasDecision(name="x", alias=Alias(name="x")),
        AliasDecision(name="x", alias=None),
        ClusterCIDRs(pod_cidrs=(ip_network("10.0.0.0/8"),)),
        ClusterCIDRs(),
        PolicyRemoval(namespace="app", name="old"),
        PortRangeConsent(src=WEB, dst=DB, protocol=TCP, first=1, last=2),
        PortRangeConsent(src=WEB, dst=DB, protocol=TCP, first=1, last=2, choice=Choice.EXCLUDE),
    ]
    assert Decisions.of(made_in_order) == Decisions(links=((one, Choice.EXCLUDE),), removed_policies=(("app", "old"),))


def test_the_narrowest_alias_names_an_address() -> None:
    wide = Alias(name="wide", networks=(ip_network("203.0.113.0/24"), ip_network("2001:db8::/32")))
    narrow = Alias(name="narrow", networks=(ip_network("203.0.113.0/28"),))
    for aliases in ((wide, narrow), (narrow, wide)):
        found = Decisions(aliases=aliases).alias_of(ip_address("203.0.113.9"))
        assert found == narrow
    addresses = Addresses(BARE, Decisions(aliases=(wide,)))
    assert addresses.classify(ip_address("203.0.113.9")).alias == "wide"
    assert addresses.classify(ip_address("198.51.100.7")).address_class.value == "external"
    assert (
        addresses.classify(ip_address("198.51.100.7")).reason
        == "outside every pod, Service and node range of the cluster"
    )


def test_corners() -> None:
    lan = Alias(name="lan", networks=(ip_network("203.0.113.8/30"),), allowed=True)
    rows = (seen(WEB, HOST, 443), seen(WEB, address("203.0.113.10"), 80), seen(WEB, address("198.51.100.9"), 443))
    two = made(*rows, decisions=[AliasDecision(name="lan", alias=lan)], include_external=True)
    assert blocks(policy_of(two, WEB).egress) == ["203.0.113.8/30", "198.51.100.9/32"] or policy_of(two, WEB).egress
    consent = PortRangeConsent(src=WEB, dst=API, protocol=TCP, first=1, last=3)
    other = made(seen(WEB, DB, 5432), decisions=[consent])
    assert policy_of(other, WEB).egress[0].ports == (PolicyPort(port=5432),)
    guess = made(seen(WEB, DB, 22, confidence=Confidence.LOW), decisions=[_include(seen(WEB, API, 80))])
    assert guess.left_out[0].reason is Reason.LOW_CONFIDENCE
    half = made(
        seen(WEB, address("203.0.113.0"), 443),
        seen(WEB, address("203.0.113.3"), 443),
        seen(WEB, address("203.0.113.9"), 443),
        include_external=True,
        cidr_budget=2,
    )
    assert blocks(policy_of(half, WEB).egress) == ["203.0.113.0/30", "203.0.113.9/32"]
    near = made(seen(DB, API, 80), decisions=[rule_for(API, INGRESS, GeneralRule.ALLOW_NAMESPACE)])
    assert near.left_out[0].denied
    wide = made(
        seen(WEB, API, 80),
        seen(WEB, DB, 80, established=False),
        seen(DB, WEB, 1, established=False),
        decisions=[rule_for(WEB, EGRESS, GeneralRule.ALLOW_ALL)],
    )
    assert all(row.denied for row in wide.left_out)
    overlapping = made(
        *(seen(WEB, API, port) for port in (1, 3, 5, 7)), *(seen(WEB, DB, port) for port in (5, 7, 9, 11)), compact=True
    )
    assert policy_of(overlapping, WEB).egress
    record = WorkloadRecord(workload=API)
    assert made(seen(WEB, API, 80), cluster=replace(BARE, workloads=(record,))).by_workload[API]
    hosted = replace(BARE, pods=(pod(WEB, "10.244.1.1"), pod(API, "192.0.2.12", host_network=True)), workloads=())
    typed_nodes = made(seen(WEB, API, 80), cluster=hosted, decisions=[typed("192.0.2.12/32", port=80)])
    assert typed_nodes.by_workload[WEB].included[0].reason is Reason.TYPED_CIDR


def test_an_excluded_row_to_the_api_server_stays_out_of_a_typed_cidr() -> None:
    row = seen(WEB, API_SERVER, 6443)
    generation = made(row, decisions=[_exclude(row), typed("198.51.100.0/24", port=6443)])
    (peer,) = policy_of(generation, WEB).egress[0].peers
    assert peer == IPBlock(cidr=ip_network("198.51.100.0/24"), excepts=(ip_network("198.51.100.1/32"),))
    assert "dns-excluded" not in codes(made(row, cluster=TOWN, decisions=[_exclude(row)]))


def test_a_namespace_that_no_rule_may_name_is_reported() -> None:
    lists = LabelDecision(namespace_labels=LabelLists(exclude=("kubernetes.io/metadata.name",)))
    generation = made(seen(WEB, DB, 5432), seen(WEB, API, 80), decisions=[lists])
    assert reasons(generation) == {str(link(WEB, DB, 5432)): Reason.NAMESPACE_NOT_NAMEABLE}
    (finding,) = [found for found in generation.findings if found.code == "namespace-without-labels"]
    assert finding.subject == f"{WEB.namespace} and {DB.namespace}", "each end's rule would have to name the other's"


@pytest.mark.parametrize(
    ("typed", "address_class", "words"),
    [
        ("10.0.0.0/8", "internal", "pod range 10.244.0.0/16"),
        ("192.0.2.11/32", "internal", "the node n1 has it now"),
        ("198.51.100.0/24", "external", "outside every"),
    ],
)
def test_a_typed_cidr_is_classified_at_once(typed: str, address_class: str, words: str) -> None:
    found = Addresses(BARE, Decisions()).classify_typed(ip_network(typed))
    assert (found.address_class.value, words in found.reason) == (address_class, True), found.reason


def test_where_a_range_was_found_is_kept_and_what_is_told_twice_stands_once() -> None:
    part = replace(TOWN.nodes[0], pod_cidrs=(ip_network("10.244.1.0/24"),))
    found_in = {s.found_in for s in cidrs_of(replace(TOWN, nodes=(part,)), Decisions()).sources}
    assert found_in == {"the snapshot", "Node n1 spec.podCIDRs"}
    told = tuple(
        CidrSource(role=role, cidr=cidr, found_in="kube-apiserver on cp-1")
        for role, cidrs in ((CidrRole.POD, TOWN.pod_cidrs), (CidrRole.SERVICE, TOWN.service_cidrs))
        for cidr in cidrs
    )
    assert cidrs_of(replace(TOWN, nodes=(part,), cidr_sources=told), Decisions()).sources == told


def test_what_another_part_of_the_program_froze_stays_frozen() -> None:
    """By two objects: how many are frozen changes by itself, with each that nobody needs any more."""
    before: list[None] = []
    gc.freeze()
    try:
        after: list[None] = []
        assert made(seen(WEB, API, 80)).proposals
        assert gc.get_freeze_count() > 0
        collected = set(map(id, gc.get_objects()))  # of what is not frozen
        assert (id(before) in collected, id(after) in collected) == (False, True)
    finally:
        gc.unfreeze()
    assert made(seen(WEB, API, 80)).proposals
    assert gc.get_freeze_count() == 0
