"""The policy engine: what-if over a million flows, an edited policy, proposals for a whole cluster, and safe YAML.

Everything is CPU time of this process on one core, except the parser of kubectl, which is Go's: it only has to agree.
`python -m bench.policy [whatif|edit|generate|labels ...]`.
"""

from __future__ import annotations

import gc
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import yaml

from aggregator.model.cluster import ClusterSnapshot, Namespace, Pod
from aggregator.model.decision import Decisions
from aggregator.model.endpoint import Connection, PodEndpoint
from aggregator.model.link import Evidence, Link, ObservedLink
from aggregator.model.networkpolicy import LabelSelector, NetworkPolicy, PolicyPort, Rule, SelectorPeer
from aggregator.model.protocol import Direction, Protocol
from aggregator.model.settings import Settings
from aggregator.model.workload import Workload
from aggregator.policy.compiled import VERDICTS, compile_policies
from aggregator.policy.evaluation.evaluate import evaluate
from aggregator.policy.generation.generate import generate
from aggregator.policy.generation.peers import namespace_selector
from aggregator.policy.manifest.render import quote, render
from bench.report import Bar, Figure, emit, median_and_spread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

WORKLOADS, NAMESPACES, POLICIES, FLOWS, LINKS, LABELS = 10_000, 200, 5_000, 1_000_000, 200_000, 60_000
PORTS = (80, 443, 8080, 5432, 6379, 9090, 53, 3306)
REPETITIONS = 5
NAIVE_FLOWS = 60
GO_CACHE = Path(os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))) / "wattle-bench"


@dataclass(frozen=True, kw_only=True)
class World:
    cluster: ClusterSnapshot
    policies: tuple[NetworkPolicy, ...]
    workloads: tuple[Workload, ...]


def world() -> World:
    rng = random.Random(5)
    pods = []
    for number in range(WORKLOADS):
        workload = Workload(cluster="bench", namespace=f"n{number % NAMESPACES}", kind="Deployment", name=f"w{number}")
        labels = (("app", f"a{rng.randrange(50)}"), ("name", workload.name), ("tier", f"t{rng.randrange(5)}"))
        ip = ip_address((10 << 24) + number + 1)
        pods.append(
            Pod(namespace=workload.namespace, name=f"{workload.name}-0", workload=workload, labels=labels, ips=(ip,))
        )
    cluster = ClusterSnapshot(
        name="bench", namespaces=tuple(Namespace(name=f"n{n}") for n in range(NAMESPACES)), pods=tuple(pods)
    )
    policies = tuple(_policy(rng, number) for number in range(POLICIES))
    return World(cluster=cluster, policies=policies, workloads=tuple(pod.workload for pod in pods))


def _policy(rng: random.Random, number: int) -> NetworkPolicy:
    def pods() -> LabelSelector:
        label = ("app", f"a{rng.randrange(50)}") if rng.random() < 0.7 else ("tier", f"t{rng.randrange(5)}")
        return LabelSelector(match_labels=(label,))

    rules = tuple(
        Rule(
            peers=(
                SelectorPeer(
                    pod_selector=pods(),
                    namespace_selector=namespace_selector(f"n{rng.randrange(NAMESPACES)}")
                    if rng.random() < 0.7
                    else LabelSelector(),
                ),
            ),
            ports=tuple(PolicyPort(port=port) for port in rng.sample(PORTS, rng.randint(1, 3))),
        )
        for _ in range(rng.randint(1, 3))
    )
    return NetworkPolicy(
        namespace=f"n{rng.randrange(NAMESPACES)}",
        name=f"p{number}",
        pod_selector=pods() if rng.random() < 0.8 else LabelSelector(),
        policy_types=(Direction.INGRESS,),
        ingress=rules,
    )


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU of one run until its answer is there: freeing that is not counted, nor what others left to collect."""
    gc.collect()
    start = time.process_time()
    answer = work()
    seconds = time.process_time() - start
    del answer
    return seconds


def whatif(made: World) -> Iterator[Figure]:
    """Verdicts on a million flows under five thousand policies."""
    rng = np.random.default_rng(5)
    src, dst = rng.integers(0, WORKLOADS, FLOWS), rng.integers(0, WORKLOADS, FLOWS)
    ports = rng.choice(np.array(PORTS), FLOWS)
    start = time.process_time()
    compiled = compile_policies(made.policies, made.cluster)
    compile_seconds = time.process_time() - start
    classes = compiled.port_class(Protocol.TCP, ports)
    compiled.verdicts_by_class(src, dst, classes)
    samples = [cpu_seconds(lambda: compiled.verdicts_by_class(src, dst, classes)) for _ in range(REPETITIONS)]
    seconds, spread = median_and_spread(samples)
    codes = compiled.verdicts_by_class(src, dst, classes)
    ends = [PodEndpoint(pod=pod, ip=pod.ips[0]) for pod in made.cluster.pods]
    asked = [
        Connection(src=ends[int(s)], dst=ends[int(d)], protocol=Protocol.TCP, port=int(p))
        for s, d, p in zip(src[:NAIVE_FLOWS], dst[:NAIVE_FLOWS], ports[:NAIVE_FLOWS], strict=True)
    ]
    start = time.process_time()
    said = [evaluate(made.policies, made.cluster, connection).verdict for connection in asked]
    naive = NAIVE_FLOWS / (time.process_time() - start)
    assert said == [VERDICTS[code] for code in codes[:NAIVE_FLOWS].tolist()], "the two evaluators disagree"
    rate = FLOWS / seconds
    yield Figure(
        figure=f"what-if, {FLOWS:,} flows under {POLICIES:,} policies, after compiling",
        value=rate / 1e6,
        unit="M flows/s on a core",
        against=f"the plain evaluator: {naive:.0f} flows/s",
        ratio=rate / naive,
        bar=Bar(comparison=">=", limit=50),
        spread=spread,
    )
    yield Figure(
        figure=f"compiling {POLICIES:,} policies over {WORKLOADS:,} workloads",
        value=compile_seconds,
        unit="s",
        against=f"the plain evaluator on the same flows: {FLOWS / naive:.0f} s",
        ratio=compile_seconds * naive / FLOWS,
    )


def edit(made: World) -> Iterator[Figure]:
    """One policy edited: from the click to the verdict on every flow to the pods that it selects."""
    compiled = compile_policies(made.policies, made.cluster)
    far = np.arange(WORKLOADS)
    samples = []
    for number in range(40, 40 + 4 * REPETITIONS):
        policy = made.policies[number * 7]
        edited = replace(policy, ingress=(*policy.ingress, Rule(ports=(PolicyPort(port=8080),))))
        subject = next(
            (n for n, pod in enumerate(made.cluster.pods) if _selects(edited, pod)),
            0,
        )

        def answer(edited: NetworkPolicy = edited, subject: int = subject) -> None:
            changed = compiled.with_policy(edited)
            changed.verdicts(far, np.full(WORKLOADS, subject), Protocol.TCP, 8080)

        samples.append(cpu_seconds(answer))
    seconds, spread = median_and_spread(samples)
    start = time.process_time()
    compile_policies(made.policies, made.cluster)
    whole = time.process_time() - start
    yield Figure(
        figure=f"one policy edited -> answer, {WORKLOADS:,} workloads",
        value=seconds * 1e3,
        unit="ms",
        against=f"compiling everything anew: {whole * 1e3:.0f} ms",
        ratio=seconds / whole,
        bar=Bar(comparison="<=", limit=50),
        spread=spread,
    )


def _selects(policy: NetworkPolicy, pod: Pod) -> bool:
    return policy.namespace == pod.namespace and policy.pod_selector.matches(dict(pod.labels))


def proposals(made: World) -> Iterator[Figure]:
    """Links of a whole cluster to policies for every workload."""
    rng = random.Random(7)
    evidence = Evidence(connections=3)
    links: dict[Link, None] = {}
    while len(links) < LINKS:
        src, dst = rng.choice(made.workloads), rng.choice(made.workloads)
        links[Link(src=src, dst=dst, protocol=Protocol.TCP, port=rng.choice(PORTS))] = None
    rows = [ObservedLink(link=link, evidence=evidence) for link in links]
    del links
    samples = [cpu_seconds(lambda: generate(rows, Decisions(), made.cluster, Settings())) for _ in range(REPETITIONS)]
    seconds, spread = median_and_spread(samples)
    generation = generate(rows, Decisions(), made.cluster, Settings())
    writing = cpu_seconds(lambda: render(generation.policies))
    gc.disable()  # the dictionary alone has a million parts, and looking for garbage among them is not its making
    peer = cpu_seconds(lambda: _pairs_only(rows))
    gc.enable()
    yield Figure(
        figure=f"{LINKS:,} links -> {len(generation.policies):,} policies",
        value=seconds,
        unit="s",
        against=f"putting the same links into one dictionary by both ends: {peer:.2f} s",
        ratio=seconds / peer,
        bar=Bar(comparison="<=", limit=3),
        spread=spread,
    )
    yield Figure(
        figure=f"the same policies as YAML, {len(render(generation.policies)) / 1e6:.0f} MB",
        value=writing,
        unit="s",
        against=f"PyYAML's C dumper, from 200 of them: {_pyyaml(generation.policies):.1f} s",
        ratio=writing / _pyyaml(generation.policies),
    )


def _pairs_only(rows: Sequence[ObservedLink]) -> dict[Workload, set[object]]:
    found: dict[Workload, set[object]] = {}
    for row in rows:
        link = row.link
        assert isinstance(link.src, Workload)
        assert isinstance(link.dst, Workload)
        found.setdefault(link.src, set()).add((link.dst, link.protocol, link.port))
        found.setdefault(link.dst, set()).add((link.src, link.protocol, link.port))
    return found


def _pyyaml(policies: Sequence[NetworkPolicy]) -> float:
    """Seconds that PyYAML would take for all of them."""
    some = policies[:200]
    objects = [yaml.safe_load(render([policy])) for policy in some]
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    return cpu_seconds(lambda: yaml.dump_all(objects, Dumper=dumper)) * len(policies) / len(some)


# ---- labels through kubectl's parser --------------------------------------------------------------------------------

_GO_MOD = "module bench\n\ngo 1.22\n\nrequire sigs.k8s.io/yaml v1.4.0\n"
_GO_MAIN = """package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"sigs.k8s.io/yaml"
)

// Reads documents parted by "---", prints each podSelector.matchLabels.app as kubectl's parser sees it.
func main() {
	all, err := io.ReadAll(os.Stdin)
	if err != nil {
		panic(err)
	}
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	for _, document := range bytes.Split(all, []byte("---\\n")) {
		var object struct {
			Spec struct {
				PodSelector struct {
					MatchLabels map[string]any `json:"matchLabels"`
				} `json:"podSelector"`
			} `json:"spec"`
		}
		if err := yaml.Unmarshal(document, &object); err != nil {
			fmt.Fprintln(out, "null")
			continue
		}
		line, _ := json.Marshal(object.Spec.PodSelector.MatchLabels["app"])
		out.Write(line)
		out.WriteByte('\\n')
	}
}
"""
_LABEL = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
_TRICKY = (
    *("", "y", "n", "Y", "N", "yes", "no", "on", "off", "true", "null", "1e3", "1e10", "7e5", "12e34567", "0x1F"),
    *("0o17", "017", "1_000", "1.0", "2024-01-01", "0b11", "NaN", "nan", "inf", "Inf", "1__0", "00", "08", "1.e2"),
    *("1e", "e1", "5e-3", "4.2e1", "12345e8", "6e7f", "0.1.2", "1-2", "True", "FALSE", "Null"),
)


def label_values() -> list[str]:
    """Valid label values, those first that some YAML reader takes for something else."""
    rng = random.Random(3)
    found = {value for value in _TRICKY if _LABEL.fullmatch(value)}
    found |= {f"{digit}e{exponent}" for digit in range(10) for exponent in range(100)}
    while len(found) < LABELS:
        value = "".join(rng.choice("0123456789abcdefxoXObynYNeE_.-") for _ in range(rng.randint(1, 6)))
        if _LABEL.fullmatch(value):
            found.add(value)
    return sorted(found)


def parser() -> Path | None:
    """A program around kubectl's own YAML reader, built once; None where there is no Go."""
    go = shutil.which("go")
    if go is None:
        return None
    program = GO_CACHE / "yamlread"
    if not program.exists():
        GO_CACHE.mkdir(parents=True, exist_ok=True)
        (GO_CACHE / "go.mod").write_text(_GO_MOD)
        (GO_CACHE / "main.go").write_text(_GO_MAIN)
        subprocess.run([go, "mod", "tidy"], cwd=GO_CACHE, check=True, capture_output=True)
        subprocess.run([go, "build", "-o", str(program), "."], cwd=GO_CACHE, check=True, capture_output=True)
    return program


def _changed(program: Path, documents: str, values: Sequence[str]) -> int:
    run = subprocess.run([str(program)], input=documents, capture_output=True, text=True, check=True)
    seen = [json.loads(line) for line in run.stdout.splitlines()]
    assert len(seen) == len(values), f"{len(seen)} documents came back for {len(values)}"
    return sum(other != value for other, value in zip(seen, values, strict=True))


def labels(_: World) -> Iterator[Figure]:
    """How many labels kubectl's parser reads as something else."""
    program = parser()
    if program is None:
        print("labels: skipped, there is no Go to build kubectl's parser with", file=sys.stderr)
        return
    values = label_values()
    policies = [
        NetworkPolicy(
            namespace="n",
            name="p",
            pod_selector=LabelSelector(match_labels=(("app", value),)),
            policy_types=(Direction.INGRESS,),
        )
        for value in values
    ]
    ours = _changed(program, render(policies), values)
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    plain = "---\n".join(
        yaml.dump({"spec": {"podSelector": {"matchLabels": {"app": value}}}}, Dumper=dumper) for value in values
    )
    theirs = _changed(program, plain, values)
    assert quote("1e3") == '"1e3"'
    yield Figure(
        figure=f"of {len(values):,} valid labels, changed by kubectl's YAML parser",
        value=ours,
        unit="labels",
        against=f"PyYAML's default output: {theirs:,}",
        ratio=ours / theirs if theirs else None,
        bar=Bar(comparison="<=", limit=0),
    )


PARTS: dict[str, Callable[[World], Iterator[Figure]]] = {
    "whatif": whatif,
    "edit": edit,
    "generate": proposals,
    "labels": labels,
}


def main(names: Sequence[str]) -> int:
    made = world()
    figures = (figure for name in (names or PARTS) for figure in PARTS[name](made))
    return 0 if emit("policy", figures) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
