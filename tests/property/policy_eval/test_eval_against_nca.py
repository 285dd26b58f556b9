"""An evaluator by other people agrees with ours on random policies, but for NP-20 and its defects (see ncaoracle).

Port names are left to the cases: there the oracle loses names that differ from pod to pod.
"""

from dataclasses import replace
from ipaddress import ip_address

from evalworlds import NAMESPACES, labels, numbered, numbered_ports, raw_policies
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from ncaoracle import Oracle, restatable

from aggregator.cluster.scenario import scenario_of
from aggregator.model.endpoint import Connection
from aggregator.model.protocol import Protocol
from aggregator.model.verdict import Verdict
from aggregator.policy.evaluation.endpoints import pair
from aggregator.policy.evaluation.evaluate import evaluate
from aggregator.policy.profiles.known import GENERIC
from aggregator.policy.profiles.profile import Answer

AS_THEY_DO = replace(GENERIC, name="nca", ipblock_matches_pods=Answer.NO)
OUTSIDE = tuple(map(ip_address, ("10.0.0.2", "10.0.0.9", "192.0.2.7", "203.0.113.9", "203.0.113.10", "fd00::9")))
NS_LABELS = {"x": {"ns": "x"}, "y": {"ns": "y"}, "z": {}}

pods = st.lists(
    st.fixed_dictionaries(
        {
            "namespace": st.sampled_from(NAMESPACES),
            "labels": labels,
        }
    ),
    min_size=2,
    max_size=4,
)
restated = raw_policies(numbered_ports, empty_egress=False).filter(restatable)
policies = st.lists(restated, min_size=1, max_size=3)


# No shrinking: the oracle takes longer than the patience of whoever waits for it.
@settings(phases=[Phase.reuse, Phase.generate], max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(pods, policies)
def test_agreement(described, raw):
    objects = numbered(raw)
    named = [pod | {"name": f"p{n}", "ip": f"172.30.0.{n + 1}"} for n, pod in enumerate(described)]
    scenario = scenario_of(
        {
            "name": "differential",
            "namespaces": [{"name": name, "labels": found} for name, found in NS_LABELS.items()],
            "pods": named,
            "policies": objects,
        }
    )
    oracle = Oracle([_namespace(name) for name in NAMESPACES], [_pod(pod) for pod in named], objects)
    ends = [*scenario.pods, *OUTSIDE]
    for src in ends:
        for dst in ends:
            if src == dst or not (isinstance(src, str) or isinstance(dst, str)):
                continue
            both = [scenario.end(end) if isinstance(end, str) else end for end in (src, dst)]
            source, destination = pair(scenario.cluster, *both)
            for protocol in Protocol:
                for port in (79, 80, 81, 90, 8080):
                    connection = Connection(src=source, dst=destination, protocol=protocol, port=port)
                    said = evaluate(scenario.policies, scenario.cluster, connection, AS_THEY_DO)
                    theirs = oracle.allows(src, dst, protocol.number, port)
                    assert (said.verdict is Verdict.ALLOWED) == theirs, (src, dst, protocol, port, said)


def _namespace(name):
    found = {"kubernetes.io/metadata.name": name, **NS_LABELS[name]}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": found}}


def _pod(pod):
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": pod["name"], "namespace": pod["namespace"], "labels": pod["labels"]},
        "spec": {"containers": [{"name": "c"}]},
        "status": {"podIP": pod["ip"], "hostIP": "192.0.2.200"},
    }
