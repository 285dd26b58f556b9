"""A scenario: a cluster on one page (namespaces, pods, services, policies, flows, expectations), JSON or YAML.

Enters: text with one scenario, a list of them, or several YAML documents. Leaves: Scenario values with a
ClusterSnapshot and parsed policies. Every refusal is an InputError that names file, document and field.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from aggregator.cluster.scenario_cluster import snapshot_of
from aggregator.cluster.scenario_schema import ExplanationPage, ScenarioPage, SidePage, TrafficPage
from aggregator.cluster.yamltext import load_documents
from aggregator.errors import InputError
from aggregator.model.address import IPAddress, canonical_address
from aggregator.model.adminpolicy import AdminPolicy
from aggregator.model.cluster import ClusterSnapshot, Pod
from aggregator.model.endpoint import Connection
from aggregator.model.networkpolicy import NetworkPolicy
from aggregator.model.protocol import Protocol
from aggregator.policy.evaluation.endpoints import pair
from aggregator.policy.manifest.adminparse import parse_any
from aggregator.policy.manifest.field import kind_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """A connection as the page writes it: `ns/pod` or `ip:ADDRESS` at each end."""

    src: str
    dst: str
    port: int
    protocol: Protocol

    def __str__(self) -> str:
        return f"{self.src} -> {self.dst} {self.protocol}/{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """`ipblock_pod`: the verdict is the one of a plug-in whose ipBlock matches pods, else the opposite one."""

    traffic: Traffic
    allowed: bool
    ipblock_pod: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySay:
    policy: str
    reason: str
    rules: tuple[int, ...] | None = None  # None = not stated


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedSide:
    outcome: str
    policies: tuple[PolicySay, ...] | None = None  # None = not stated


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedExplanation:
    traffic: Traffic
    allowed: bool | None = None
    ipblock_pod: bool = False
    egress: ExpectedSide | None = None
    ingress: ExpectedSide | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """A flow as a hook saw it. `origin` connect() and sendmsg() see Service addresses; absent sees the pod's own."""

    traffic: Traffic
    at_seconds: float | None = None
    origin: str = ""
    result: str = "established"  # established | refused | syn-only
    verdict: str = "forwarded"  # forwarded | dropped-by-policy
    count: int = 1
    process: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressSpan:
    """Who had an address, from when to when; None = since ever, until now. `pod` None = nobody."""

    ip: IPAddress
    pod: str | None
    start_seconds: float | None
    end_seconds: float | None


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One page. `page` is the checked input, for what only one reader needs (findings, limits, properties)."""

    name: str
    file: str = ""
    document: int = 1
    cluster: ClusterSnapshot
    policies: tuple[NetworkPolicy | AdminPolicy, ...] = ()
    policy_objects: tuple[Mapping[str, Any], ...] = ()
    flows: tuple[Flow, ...] = ()
    expectations: tuple[Expectation, ...] = ()
    explanations: tuple[ExpectedExplanation, ...] = ()
    order: tuple[str, ...] = ()
    matrix: Mapping[tuple[Protocol, int], tuple[str, ...]] = field(default_factory=dict)
    must_allow: tuple[Traffic, ...] = ()  # `extra_must_allow` is in here, too
    must_deny: tuple[Traffic, ...] = ()
    lifetimes: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)  # by "ns/pod", in seconds
    ip_history: tuple[AddressSpan, ...] = ()
    mode: str = "ingress+egress"
    scope: tuple[str, ...] | None = None  # None = every namespace
    expected: Mapping[str, Any] = field(default_factory=dict)
    page: ScenarioPage

    @cached_property
    def pods(self) -> Mapping[str, Pod]:
        """Pods by `namespace/name`."""
        return {str(pod): pod for pod in self.cluster.pods}

    def end(self, reference: str) -> Pod | IPAddress:
        """What `ns/pod` or `ip:ADDRESS` stands for. Raises InputError for a pod that the page does not have."""
        if reference.startswith("ip:"):
            try:
                return canonical_address(reference.removeprefix("ip:"))
            except ValueError as exc:
                raise self.refuse(f"{reference!r} is not an address: {exc}") from exc
        pod = self.pods.get(reference)
        if pod is None:
            raise self.refuse(f"there is no pod {reference!r}")
        return pod

    def connection(self, traffic: Traffic) -> Connection:
        """The connection, by who has the addresses now."""
        src, dst = pair(self.cluster, self.end(traffic.src), self.end(traffic.dst))
        return Connection(src=src, dst=dst, protocol=traffic.protocol, port=traffic.port)

    def refuse(self, message: str, at: str = "") -> InputError:
        return InputError(message, file=self.file, document=self.document, field=at)


def load_scenarios(path: Path) -> tuple[Scenario, ...]:
    """All scenarios of a file."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise InputError(f"reading the scenario: {exc}", file=str(path)) from exc
    return parse_scenarios(text, file=str(path))


def parse_scenarios(text: str, *, file: str = "") -> tuple[Scenario, ...]:
    """All scenarios of a text; `document` counts them from 1."""
    return tuple(scenario_of(page, file=file, document=index) for index, page in enumerate(_pages(text, file), start=1))


def scenario_of(raw: object, *, file: str = "", document: int = 1) -> Scenario:
    """One scenario from its parsed page."""
    if not isinstance(raw, Mapping):
        says = f"must be a scenario (a mapping with a name), is {kind_name(raw)}"
        raise InputError(says, file=file, document=document)
    if "apiVersion" in raw and "kind" in raw:
        says = f"{raw['kind']} is a Kubernetes object; a page with expectations is needed"
        raise InputError(says, file=file, document=document, field="kind")
    try:
        page = ScenarioPage.model_validate(raw)
    except ValidationError as exc:
        raise _refused(exc, file, document) from exc
    try:
        return _built(page, file, document)
    except InputError as exc:
        raise InputError(exc.reason, file=file, document=document, field=exc.field) from exc


def _pages(text: str, file: str) -> Iterator[object]:
    for document in load_documents(text, file=file):
        if isinstance(document, list):
            yield from document
        elif document is not None:
            yield document


def _refused(error: ValidationError, file: str, document: int) -> InputError:
    """All that pydantic found, in one sentence; the field is the first one's."""
    found = []
    for problem in error.errors():
        path = ""
        for part in problem["loc"]:
            path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
        unknown = problem["type"] == "extra_forbidden"
        found.append((path, f"unknown key {problem['loc'][-1]!r}" if unknown else problem["msg"]))
    first_path, first_says = found[0]
    others = "".join(f"; {path}: {says}" for path, says in found[1:])
    return InputError(first_says + others, file=file, document=document, field=first_path)


def _built(page: ScenarioPage, file: str, document: int) -> Scenario:
    policies = tuple(_policy(obj, index) for index, obj in enumerate(page.policies))
    namespaced = tuple(policy for policy in policies if isinstance(policy, NetworkPolicy))
    scenario = Scenario(
        name=page.name,
        file=file,
        document=document,
        cluster=snapshot_of(page, namespaced, tuple(p for p in policies if isinstance(p, AdminPolicy))),
        policies=policies,
        policy_objects=tuple(page.policies),
        flows=tuple(
            Flow(
                traffic=_traffic(flow),
                at_seconds=flow.ts,
                origin=flow.origin,
                result=flow.result,
                verdict=flow.verdict,
                count=flow.count,
                process=flow.process,
            )
            for flow in page.flows
        ),
        expectations=tuple(
            Expectation(traffic=_traffic(item), allowed=item.allowed, ipblock_pod=item.ipblock_pod)
            for item in page.expectations
        ),
        explanations=tuple(_explanation(item) for item in page.explanations),
        order=tuple(page.order),
        matrix={_matrix_key(key): _matrix_rows(page, key) for key in page.matrix},
        must_allow=tuple(_traffic(item) for item in (*page.must_allow, *page.extra_must_allow)),
        must_deny=tuple(_traffic(item) for item in page.must_deny),
        lifetimes={f"{pod.namespace}/{pod.name}": (pod.start, pod.end) for pod in page.pods},
        ip_history=tuple(
            AddressSpan(
                ip=_address(span.ip, f"ip_history[{index}].ip"),
                pod=span.pod,
                start_seconds=span.start,
                end_seconds=span.end,
            )
            for index, span in enumerate(page.ip_history)
        ),
        mode=page.options.mode,
        scope=None if page.options.scope is None else tuple(page.options.scope),
        expected=page.expected,
        page=page,
    )
    _check_references(scenario, page)
    return scenario


def _check_references(scenario: Scenario, page: ScenarioPage) -> None:
    """A misspelt pod is found on reading, with its field, not when it is first asked for.

    Flows are left alone: they may speak of pods that are gone.
    """
    for key in ("expectations", "explanations", "must_allow", "must_deny", "extra_must_allow"):
        for index, item in enumerate(getattr(page, key)):
            for end, reference in (("from", item.src), ("to", item.dst)):
                _known(scenario, reference, f"{key}[{index}].{end}")
    for index, reference in enumerate(page.order):
        _known(scenario, reference, f"order[{index}]")


def _known(scenario: Scenario, reference: str, at: str) -> None:
    if reference.startswith("ip:"):
        _address(reference.removeprefix("ip:"), at)
    elif reference not in scenario.pods:
        raise InputError(f"there is no pod {reference!r}", field=at)


def _policy(obj: Mapping[str, Any], index: int) -> NetworkPolicy | AdminPolicy:
    try:
        return parse_any(obj)
    except InputError as exc:
        raise InputError(exc.reason, field=f"policies[{index}].{exc.field}") from exc


def _traffic(page: TrafficPage) -> Traffic:
    return Traffic(src=page.src, dst=page.dst, port=page.port, protocol=page.protocol)


def _explanation(page: ExplanationPage) -> ExpectedExplanation:
    return ExpectedExplanation(
        traffic=_traffic(page),
        allowed=page.allowed,
        ipblock_pod=page.ipblock_pod,
        egress=None if page.egress is None else _side(page.egress),
        ingress=None if page.ingress is None else _side(page.ingress),
    )


def _side(page: SidePage) -> ExpectedSide:
    return ExpectedSide(
        outcome=page.outcome,
        policies=None
        if page.policies is None
        else tuple(
            PolicySay(policy=say.policy, reason=say.reason, rules=None if say.rules is None else tuple(say.rules))
            for say in page.policies
        ),
    )


def _matrix_key(key: str) -> tuple[Protocol, int]:
    port, _, protocol = key.partition("/")
    if not port.isascii() or not port.isdecimal() or protocol not in tuple(Protocol):
        raise InputError(f"{key!r} is not PORT/PROTOCOL", field=f"matrix.{key}")
    return Protocol(protocol), int(port)


def _matrix_rows(page: ScenarioPage, key: str) -> tuple[str, ...]:
    rows = tuple(row if isinstance(row, str) else "".join(map(str, row)) for row in page.matrix[key])
    size = len(page.order)
    if len(rows) != size or any(len(row) != size or set(row) - set("01-") for row in rows):
        raise InputError(f"must have {size} rows of {size} characters out of 0, 1 and -", field=f"matrix.{key}")
    return rows


def _address(text: str, at: str) -> IPAddress:
    try:
        return canonical_address(text)
    except ValueError as exc:
        raise InputError(f"{text!r} is not an address", field=at) from exc
