"""The likely cause of a policy that is not enforced, in words; and how a workload is restarted."""

from dataclasses import replace
from ipaddress import ip_network

import pytest

from aggregator.model.networkpolicy import IPBlock, LabelSelector, NetworkPolicy, PolicyPort, Rule
from aggregator.model.protocol import Direction, Protocol
from aggregator.model.workload import Workload
from aggregator.policy.enforcement import Circumstances, likely_cause, restart_command

POLICY = NetworkPolicy(
    namespace="shop", name="db", pod_selector=LabelSelector(), policy_types=(Direction.INGRESS,), ingress=(Rule(),)
)
FOUND = Circumstances(
    plugin="Calico", enforces=True, why_not="", node="n1", other_violating_nodes=(), nodes=3, deciding=(POLICY,)
)


def ruled(rule: Rule) -> NetworkPolicy:
    return replace(POLICY, ingress=(rule,))


BLOCK = IPBlock(cidr=ip_network("10.0.0.0/8"), excepts=(ip_network("10.1.0.0/16"),))


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (replace(FOUND, enforces=None), "no network plug-in that enforces policies was recognised"),
        (replace(FOUND, enforces=False, why_not="flannel has no policies"), "not enforced here: flannel has no"),
        (FOUND, "only the node n1 lets it through: Calico has stopped there, or lags behind"),
        (replace(FOUND, other_violating_nodes=("n2",)), "Calico has stopped, or its policy feature is switched off"),
        (replace(FOUND, nodes=1), "Calico has stopped, or its policy feature is switched off"),
        (replace(FOUND, deciding=(ruled(Rule(ports=(PolicyPort(port=1, end_port=9),))),)), "uses endPort: a release"),
        (replace(FOUND, deciding=(ruled(Rule(ports=(PolicyPort(protocol=Protocol.SCTP),))),)), "uses SCTP: a release"),
        (replace(FOUND, deciding=(ruled(Rule(peers=(BLOCK,))),)), "uses ipBlock.except: a release of Calico"),
    ],
)
def test_the_most_telling_cause_first(found: Circumstances, words: str) -> None:
    assert words in likely_cause(found)


def test_a_restart_only_of_what_can_be_restarted() -> None:
    web = Workload(cluster="c", namespace="shop", kind="Deployment", name="web")
    assert restart_command(web) == "kubectl -n shop rollout restart deployment/web"
    assert restart_command(replace(web, kind="CronJob")) == ""
