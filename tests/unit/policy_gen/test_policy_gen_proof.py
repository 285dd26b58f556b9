"""The proof and what follows from it: certificates that fail, simulation, order of application, declared callers."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network

from aggregator.model.adminpolicy import ForeignPolicy
from aggregator.model.certificate import OpenedPair
from aggregator.model.cluster import ContainerPort, Service, ServiceBackend, ServicePort, WorkloadRecord
from aggregator.model.decision import (
    Decisions,
    DefaultDeny,
    DirectionDecision,
    GeneralRule,
    PolicyRemoval,
    PortRangeConsent,
)
from aggregator.model.declared import CallerKind, DeclaredCaller
from aggregator.model.link import Evidence, ObservedLink
from aggregator.model.networkpolicy import IPBlock, LabelSelector, NetworkPolicy, PolicyPort, Rule, SelectorPeer
from aggregator.model.proposal import Generation
from aggregator.model.protocol import Direction
from aggregator.model.simulation import Action, Bucket, Candidate
from aggregator.model.verdict import Verdict
from aggregator.policy.certify import certify
from aggregator.policy.evaluation.evaluate import evaluate
from aggregator.policy.evaluation.live import Live, connect
from aggregator.policy.order import after, is_long_lived, plan
from aggregator.policy.simulate import simulate
from tests.unit.policy_gen.town import (
    API,
    API_SERVER,
    BARE,
    DB,
    DNS,
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
NOW = datetime(2026, 1, 1, tzinfo=UTC)
EVERY = LabelSelector()


def applied(name: str, selector: LabelSelector = EVERY, namespace: str = "app", **rules: object) -> NetworkPolicy:
    types = tuple(d for d in (INGRESS, EGRESS) if d.value.lower() in rules)
    return NetworkPolicy(namespace=namespace, name=name, pod_selector=selector, policy_types=types, **rules)  # type: ignore[arg-type]


def broken(generation: Generation) -> list[str]:
    return [finding.message for finding in generation.findings if finding.code == "certificate-broken"]


def test_a_certificate_counts_what_it_judged_and_what_it_opens() -> None:
    rows = (seen(WEB, API, 80), seen(WEB, DB, 22, established=False))
    certified = certify(made(*rows, cluster=TOWN), TOWN)
    certificate = certified.by_workload[WEB].certificate
    assert certificate is not None
    assert certificate.holds
    assert (certificate.included, certificate.denied) == (1, 1)
    assert certificate.evaluators == ("plain", "compiled")
    assert certificate.opened == tuple(
        OpenedPair(src=WEB, dst=DNS, protocol=protocol, first_port=5353, last_port=5353, because="dns")
        for protocol in (TCP, UDP)
    )


def test_an_applied_policy_that_allows_what_is_left_out_breaks_the_proof_until_it_is_to_go() -> None:
    everything = applied("old", egress=(Rule(),))
    cluster = replace(BARE, policies=(everything,))
    rows = (seen(WEB, API, 80), seen(WEB, DB, 22, established=False))
    generation = made(*rows, cluster=cluster, namespaces=frozenset({"app"}))
    certified = certify(generation, cluster)
    assert WEB not in certified.by_workload
    assert "app/old: allowed" in broken(certified)[0]
    removal = Decisions.of([PolicyRemoval(namespace="app", name="old")])
    assert not broken(certify(generation, cluster, decisions=removal))


def test_an_applied_policy_that_cuts_what_is_included_breaks_the_proof() -> None:
    cluster = replace(BARE, policies=(applied("deny", namespace="data", ingress=()),))
    certified = certify(made(seen(WEB, DB, 5432), cluster=cluster, namespaces=frozenset({"app"})), cluster)
    assert not certified.proposals
    assert broken(certified)


def test_a_proposal_that_does_not_say_what_it_promises_is_none() -> None:
    generation = made(seen(WEB, API, 80), seen(WEB, DB, 5432))
    empty = tuple(
        replace(p, policies=tuple(replace(policy, egress=()) for policy in p.policies)) for p in generation.proposals
    )
    certified = certify(replace(generation, proposals=empty), BARE)
    assert WEB not in certified.by_workload
    assert "decide about this row" in {f.way_out for f in certified.findings if f.code == "certificate-broken"}


def test_evaluators_that_disagree_prove_nothing() -> None:
    generation = made(seen(WEB, API, 80))
    certified = certify(generation, BARE, second=lambda *args: [Verdict.UNKNOWN] * len(args[3]))
    assert not certified.proposals
    assert "the two evaluators disagree" in broken(certified)[0]


def test_what_nobody_can_judge_is_undecided_and_not_counted() -> None:
    cluster = replace(BARE, extra_policies=(ForeignPolicy(kind="CiliumNetworkPolicy", name="x", namespace="app"),))
    certified = certify(made(seen(WEB, API, 80), cluster=cluster), cluster)
    certificate = certified.by_workload[WEB].certificate
    assert certificate is not None
    assert certificate.holds
    assert [item.found for item in certificate.undecided] == [Verdict.UNKNOWN]
    gone = made(seen(WEB, API, 80), seen(WEB, workload("gone"), 80))
    found = certify(gone, BARE).by_workload[WEB].certificate
    assert found is not None
    assert found.denied == 0


def test_a_workload_and_itself_and_a_node_and_its_own_pod_are_always_allowed() -> None:
    certified = certify(made(seen(API, API, 80), seen(NODES, API, 80)), BARE)
    certificate = certified.by_workload[API].certificate
    assert certificate is not None
    assert (certificate.included, certificate.breaches) == (2, ())


def test_what_is_opened_says_who_asked_for_it() -> None:
    consent = PortRangeConsent(src=WEB, dst=DB, protocol=TCP, first=5432, last=5440)
    rule = DirectionDecision(workload=API, direction=INGRESS, rule=GeneralRule.ALLOW_ALL)
    certified = certify(made(seen(WEB, DB, 5432), decisions=[consent, rule]), BARE)
    opened = {
        (o.src, o.first_port, o.because) for p in certified.proposals for o in p.certificate.opened if p.certificate
    }
    assert (WEB, 5433, "port-range") in opened
    assert (DB, 1, "general-rule") in opened
    assert (NODES, 1, "general-rule") in opened


def test_the_api_server_on_a_node_is_not_opened_besides() -> None:
    certified = certify(made(seen(WEB, API_SERVER, 443)), BARE)
    certificate = certified.by_workload[WEB].certificate
    assert certificate is not None
    assert certificate.opened == ()


def test_an_undeclared_opening_has_no_reason() -> None:
    generation = made(seen(WEB, DB, 5432))
    wide = tuple(
        replace(p, policies=tuple(replace(policy, egress=(*policy.egress, Rule())) for policy in p.policies))
        if p.workload == WEB
        else p
        for p in generation.proposals
    )
    certified = certify(replace(generation, proposals=wide), BARE)
    certificate = certified.by_workload[WEB].certificate
    assert certificate is not None
    assert {o.because for o in certificate.opened} == {""}


def test_live_ends_and_candidates() -> None:
    many = tuple(pod(WEB, f"10.244.2.{n}") for n in range(1, 6))
    record = WorkloadRecord(workload=workload("cron"), selector=(("app", "cron"),))
    cluster = replace(
        BARE, pods=(*BARE.pods, *many, pod(workload("done"), "10.244.3.1", ended=True)), workloads=(record,)
    )
    blocks = applied(
        "b",
        ingress=(Rule(peers=(IPBlock(cidr=ip_network("10.244.2.0/24")), IPBlock(cidr=ip_network("10.244.2.5/32")))),),
    )
    live = Live(cluster, [blocks])
    assert len(live.pods(WEB)) == 5  # two outside the block, two inside it, and the one that is named
    assert [p.name for p in live.pods(workload("cron"))] == ["cron (none runs now)"]
    assert live.pods(workload("gone")) == ()
    assert live.pods(workload("done")) == ()
    assert live.ports_of(API_SERVER, TCP, 443) == ((TCP, 6443),)
    assert Live(replace(cluster, services=()), []).ports_of(API_SERVER, TCP, 443) == ((TCP, 443),)
    own = SelectorPeer(pod_selector=EVERY)
    everywhere = SelectorPeer(namespace_selector=EVERY)
    narrow = SelectorPeer(pod_selector=LabelSelector(match_labels=(("app", "api"),)))

    def ends(*peers: object) -> set[object]:
        return {found.end for found in live.candidates(blocks, peers)}  # type: ignore[arg-type]

    assert ends(own) == {WEB, API, workload("cron")}
    assert ends(everywhere) == {WEB, API, DB, workload("cron")}
    assert ends(narrow) == {API}
    assert ends(IPBlock(cidr=ip_network("192.0.2.0/24"))) == {NODES}
    assert ends() == {WEB, API, DB, NODES, workload("cron")}


def test_simulation_puts_every_link_into_one_bucket() -> None:
    cluster = replace(TOWN, policies=(applied("lock", namespace="data", ingress=()),))
    rows = (
        seen(WEB, API, 80, last_seen=NOW),
        seen(WEB, API, 22, last_seen=NOW - timedelta(days=7), connections=8),
        seen(WEB, DB, 5432),
        seen(WEB, workload("gone"), 80),
        seen(API, API, 80),
        seen(WEB, API_SERVER, 6443),
    )
    proposed = made(rows[0], rows[2], cluster=cluster).policies
    found = simulate(rows, proposed, cluster, now=NOW, removed=[("data", "lock")])
    both = {str(r.observed.link): r.bucket for r in found.replays[Candidate.APPLIED_AND_PROPOSED] if not r.synthetic}
    assert both == {
        str(rows[0].link): Bucket.UNCHANGED,
        str(rows[1].link): Bucket.WOULD_BE_CUT,
        str(rows[2].link): Bucket.NEWLY_ALLOWED,
        str(rows[3].link): Bucket.UNKNOWN,
        str(rows[4].link): Bucket.UNCHANGED,
        str(rows[5].link): Bucket.WOULD_BE_CUT,
    }
    weights = {str(r.observed.link): r.weight for r in found.replays[Candidate.PROPOSED_ONLY]}
    assert weights[str(rows[1].link)] == 4.0  # eight, a half-life ago
    assert found.counts(Candidate.APPLIED_AND_PROPOSED)[Bucket.UNKNOWN] == 1
    synthetic = {r.observed.link for r in found.replays[Candidate.PROPOSED_ONLY] if r.synthetic}
    assert link(WEB, DNS, 5353, UDP) in synthetic
    assert not any(r.bucket is Bucket.WOULD_BE_CUT for r in found.replays[Candidate.PROPOSED_ONLY] if r.synthetic)


def test_the_api_server_is_tried_on_its_real_port() -> None:
    rows = (seen(WEB, API_SERVER, 443),)
    found = simulate(rows, made(*rows).policies, BARE, now=NOW)
    assert {r.observed.link.port for r in found.replays[Candidate.PROPOSED_ONLY]} == {443, 6443}


def test_no_step_of_a_plan_cuts_what_the_whole_allows() -> None:
    rows = [seen(WEB, address(f"203.0.113.{n}"), 443) for n in range(0, 40, 2)] + [seen(WEB, API, 80), seen(API, DB, 1)]
    old = applied("old", egress=(Rule(ports=(PolicyPort(port=1),)),))
    cluster = replace(BARE, policies=(old,))
    decisions = Decisions.of(
        [PolicyRemoval(namespace="app", name="old"), DefaultDeny(namespace="app", direction=INGRESS)]
    )
    generation = made(*rows, cluster=cluster, decisions=decisions, include_external=True, max_peers=8)
    steps = plan(generation, cluster, decisions).steps
    assert steps[-1].policy.name == "wattle-default-deny-ingress"
    assert {s.action for s in steps if s.temporary} == {Action.APPLY, Action.DELETE}
    live = Live(cluster, generation.policies)
    for _, policies in after(steps, ()):
        for row in rows:
            for src in live.endpoints(row.link.src):
                for dst in live.endpoints(row.link.dst):
                    connection = connect(src, dst, TCP, row.link.port)
                    assert evaluate(policies, cluster, connection).verdict is Verdict.ALLOWED
    assert [s.policy.name for s in steps if s.action is Action.DELETE and not s.temporary] == ["old"]


def test_connections_that_never_end_ask_for_a_restart() -> None:
    long = seen(WEB, DB, 5432, connections=1, first_seen=NOW - timedelta(hours=9), last_seen=NOW)
    generation = made(
        long,
        seen(API, DB, 5432, connections=0),
        seen(workload("raw", kind="Pod"), DB, 1, connections=0),
        seen(WEB, API, 53, UDP, connections=0),
        cluster=replace(BARE, pods=(*BARE.pods, pod(workload("raw", kind="Pod"), "10.244.1.9"))),
    )
    advice = {a.workload: a.command for a in plan(generation, BARE).restarts}
    assert advice == {
        WEB: "kubectl -n app rollout restart deployment/web",
        API: "kubectl -n app rollout restart deployment/api",
        workload("raw", kind="Pod"): "",
    }
    assert not is_long_lived(seen(WEB, DB, 1, established=False, connections=0))
    assert not is_long_lived(ObservedLink(link=link(WEB, DB, 1), evidence=Evidence(connections=1)))


def test_declared_callers_are_rows_to_decide() -> None:
    prometheus = pod(workload("prometheus", "mon"), "10.244.5.1", labels=(("app.kubernetes.io/name", "prometheus"),))
    gateway = pod(workload("gw", "mon"), "192.0.2.11", labels=(("gw", "1"),), host_network=True)
    done = pod(workload("old", "mon"), "10.244.5.9", labels=(("app", "prometheus"),), ended=True)
    api = replace(BARE.pods[2], ports=(ContainerPort(name="http", port=8080), ContainerPort(name="metrics", port=9090)))
    service = Service(
        namespace="app",
        name="api",
        ports=(ServicePort(name="https", port=443, target_port=8443), ServicePort(name="x", port=1)),
        backends=(
            ServiceBackend(ip=api.ips[0], port=8443, protocol=TCP, port_name="https"),
            ServiceBackend(ip=api.ips[0], port=1, protocol=TCP, port_name="x"),
            ServiceBackend(ip=ip_address("192.0.2.11"), port=8443, protocol=TCP, port_name="https"),
        ),
    )
    own = (("app", "api"),)
    callers = (
        DeclaredCaller(kind=CallerKind.API_SERVER, source="hook", namespace="app", service="api", port=443),
        DeclaredCaller(kind=CallerKind.MONITORING, source="monitor", namespace="app", selector=own, port="metrics"),
        DeclaredCaller(kind=CallerKind.MONITORING, source="pods", namespace="app", selector=own, port=7),
        DeclaredCaller(kind=CallerKind.MONITORING, source="all", namespace="app", selector=own),
        DeclaredCaller(kind=CallerKind.MONITORING, source="nothing", namespace="app"),
        DeclaredCaller(
            kind=CallerKind.GATEWAY,
            source="route",
            namespace="app",
            selector=own,
            port=8080,
            caller_namespace="mon",
            caller_labels=(("gw", "1"),),
        ),
        DeclaredCaller(
            kind=CallerKind.GATEWAY, source="self", namespace="app", selector=own, port=8080, caller_labels=own
        ),
    )
    cluster = replace(
        BARE,
        pods=(*BARE.pods[:2], api, *BARE.pods[3:], prometheus, gateway, done),
        services=(*BARE.services, service),
        declared_callers=(*callers, "not one of these"),
    )
    generation = made(seen(workload("prometheus", "mon"), API, 7), cluster=cluster)
    assert {(row.source, str(row.link.src), row.link.port) for row in generation.declared} == {
        ("hook", "kubernetes API server", 8443),
        ("monitor", "mon/Deployment/prometheus", 9090),
        ("all", "mon/Deployment/prometheus", 8080),
        ("all", "mon/Deployment/prometheus", 9090),
        ("route", "nodes", 8080),
    }
    assert not made(cluster=cluster).proposals


def test_a_breach_at_a_node_names_the_node() -> None:
    generation = made(seen(NODES, WEB, 80))
    empty = tuple(
        replace(p, policies=tuple(replace(policy, ingress=()) for policy in p.policies)) for p in generation.proposals
    )
    certified = certify(replace(generation, proposals=empty), BARE)
    assert "for node n1 (192.0.2.11) -> app/web-2" in broken(certified)[0]


def test_a_range_explains_only_what_is_in_it() -> None:
    consent = PortRangeConsent(src=WEB, dst=DB, protocol=TCP, first=5432, last=5440)
    generation = made(seen(WEB, DB, 5432), decisions=[consent])
    wide = tuple(
        replace(
            p,
            policies=tuple(
                replace(policy, egress=(Rule(),), ingress=(Rule(),) if policy.ingress else ()) for policy in p.policies
            ),
        )
        for p in generation.proposals
    )
    certificate = certify(replace(generation, proposals=wide), BARE).by_workload[WEB].certificate
    assert certificate is not None
    assert {o.because for o in certificate.opened if o.dst == DB} == {""}
