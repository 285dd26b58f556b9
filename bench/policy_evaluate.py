"""What-if over stored history: 1 M flows against 5,000 policies over 10,000 workloads, and one policy edited.

Enters: a seeded random cluster. Leaves: figures for bench.policy. The compiled form is timed in the CPU time of this
process, on one core; the plain evaluator answers a sample of the same flows, and must agree on each.
"""

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address

import numpy as np
from numpy.typing import NDArray

from aggregator.model.cluster import NAMESPACE_NAME_LABEL, ClusterSnapshot, Namespace, Pod
from aggregator.model.endpoint import Connection, PodEndpoint
from aggregator.model.networkpolicy import LabelSelector, NetworkPolicy, PolicyPort, Rule, SelectorPeer
from aggregator.model.protocol import Direction, Protocol
from aggregator.model.workload import Workload
from aggregator.policy.compiled import VERDICTS, CompiledPolicies, compile_policies
from aggregator.policy.evaluate import evaluate
from bench.report import Bar, Figure, emit, median_and_spread

WORKLOADS, POLICIES, FLOWS, NAMESPACES = 10_000, 5_000, 1_000_000, 200
PORTS = (80, 443, 8080, 5432, 6379, 9090, 53, 3306)
SAMPLE, EDITS, ROUNDS = 200, 9, 5


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    cluster: ClusterSnapshot
    policies: tuple[NetworkPolicy, ...]
    src: NDArray[np.int64]
    dst: NDArray[np.int64]
    port: NDArray[np.int64]


def world(seed: int = 5) -> World:
    """One pod a workload; three policies of four name a peer's namespace; servers are popular by Zipf's law."""
    chance, numbers = random.Random(seed), np.random.default_rng(seed)
    pods = tuple(
        Pod(
            namespace=(namespace := f"n{chance.randrange(NAMESPACES)}"),
            name=f"p{number}",
            workload=Workload(cluster="bench", namespace=namespace, kind="Deployment", name=f"p{number}"),
            labels=(("app", f"a{chance.randrange(50)}"), ("tier", f"t{chance.randrange(5)}")),
            ips=(ip_address(0x0A000000 + number + 1),),
            node_name=f"node{number % 100}",
        )
        for number in range(WORKLOADS)
    )
    return World(
        cluster=ClusterSnapshot(namespaces=tuple(Namespace(name=f"n{n}") for n in range(NAMESPACES)), pods=pods),
        policies=tuple(_policy(chance, number) for number in range(POLICIES)),
        src=numbers.integers(0, WORKLOADS, FLOWS).astype(np.int64),
        dst=((np.minimum(numbers.zipf(1.2, FLOWS), WORKLOADS) - 1) % WORKLOADS).astype(np.int64),
        port=numbers.choice(np.array(PORTS, dtype=np.int64), FLOWS),
    )


def _policy(chance: random.Random, number: int) -> NetworkPolicy:
    return NetworkPolicy(
        namespace=f"n{chance.randrange(NAMESPACES)}",
        name=f"p{number}",
        pod_selector=_labelled("app", f"a{chance.randrange(50)}") if chance.random() < 0.8 else LabelSelector(),
        policy_types=tuple(Direction),
        ingress=_rules(chance),
        egress=_rules(chance),
    )


def _rules(chance: random.Random) -> tuple[Rule, ...]:
    found = []
    for _ in range(chance.randrange(1, 4)):
        here = _labelled(NAMESPACE_NAME_LABEL, f"n{chance.randrange(NAMESPACES)}")
        app, tier = _labelled("app", f"a{chance.randrange(50)}"), _labelled("tier", f"t{chance.randrange(5)}")
        peer = SelectorPeer(
            namespace_selector=here if chance.random() < 0.7 else LabelSelector(),
            pod_selector=app if chance.random() < 0.7 else tier,
        )
        ports = tuple(PolicyPort(port=port) for port in chance.sample(PORTS, chance.randrange(1, 4)))
        found.append(Rule(peers=(peer,), ports=ports))
    return tuple(found)


def _labelled(key: str, value: str) -> LabelSelector:
    return LabelSelector(match_labels=((key, value),))


def evaluate_figures() -> Iterator[Figure]:
    """Compile, judge all flows, judge a sample plainly, edit one policy and judge all flows again."""
    given = world()
    started = time.process_time()
    compiled = compile_policies(given.policies, given.cluster)
    compiling_seconds = time.process_time() - started
    port_class = compiled.port_class(Protocol.TCP, given.port)
    samples, codes = [], np.empty(0, dtype=np.uint8)
    for _ in range(ROUNDS):
        started = time.process_time()
        codes = compiled.verdicts_by_class(given.src, given.dst, port_class)
        samples.append(FLOWS / (time.process_time() - started))
    fast, spread = median_and_spread(samples)
    plain = _plain_flows_per_second(given, codes)
    yield Figure(
        figure=f"what-if, {FLOWS:,} flows x {POLICIES:,} policies, both directions",
        value=fast / 1e6,
        unit="M flows/s",
        against=f"the plain evaluator, {plain:,.0f} flows/s, agreeing on {SAMPLE}",
        ratio=fast / plain,
        bar=Bar(comparison=">=", limit=50),
        spread=spread,
    )
    yield Figure(
        figure=f"compiling {POLICIES:,} policies over {WORKLOADS:,} workloads",
        value=compiling_seconds,
        unit="s",
        against="once a snapshot; a changed policy does not compile the rest again",
    )
    edits, spread = median_and_spread([_edit_ms(given, compiled, number) for number in range(EDITS)])
    yield Figure(
        figure=f"one policy edited, {WORKLOADS:,} workloads: new verdicts for {FLOWS:,} flows",
        value=edits,
        unit="ms",
        against=f"compiling everything again: {compiling_seconds * 1e3:,.0f} ms",
        ratio=edits / (compiling_seconds * 1e3),
        bar=Bar(comparison="<=", limit=50),
        spread=spread,
    )


def _plain_flows_per_second(given: World, codes: NDArray[np.uint8]) -> float:
    pods = given.cluster.pods
    started = time.process_time()
    for number in range(SAMPLE):
        src, dst = pods[given.src[number]], pods[given.dst[number]]
        connection = Connection(
            src=PodEndpoint(pod=src, ip=src.ips[0]),
            dst=PodEndpoint(pod=dst, ip=dst.ips[0]),
            protocol=Protocol.TCP,
            port=int(given.port[number]),
        )
        verdict = evaluate(given.policies, given.cluster, connection).verdict
        assert verdict is VERDICTS[codes[number]], connection
    return SAMPLE / (time.process_time() - started)


def _edit_ms(given: World, compiled: CompiledPolicies, number: int) -> float:
    """A policy that now selects its whole namespace and speaks of a port that no policy spoke of."""
    old = given.policies[number * 100]
    new = NetworkPolicy(
        namespace=old.namespace,
        name=old.name,
        policy_types=tuple(Direction),
        ingress=(Rule(ports=(PolicyPort(port=20_000 + number),)),),
    )
    started = time.process_time()
    compiled.with_policy(new).verdicts(given.src, given.dst, Protocol.TCP, given.port)
    return (time.process_time() - started) * 1e3


if __name__ == "__main__":
    emit("policy", evaluate_figures(), fresh=False)
