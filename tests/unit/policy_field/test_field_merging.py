"""Peers that differ in one value are one peer with a list: the same pods, fewer lines."""

import itertools
import random
from ipaddress import ip_network

import pytest

from aggregator.model.networkpolicy import (
    IPBlock,
    LabelSelector,
    NetworkPolicy,
    Operator,
    PolicyPeer,
    Requirement,
    Rule,
    SelectorPeer,
)
from aggregator.policy.generation.merging import MOST_VALUES, merged
from aggregator.policy.generation.peers import every_pod, namespace_selector, whole_namespace
from aggregator.policy.manifest.render import render

KEYS, VALUES = ("app", "role"), ("a", "b", "c", "d")
EVERY_LABELS = [
    {k: v for k, v in zip(KEYS, pair, strict=True) if v is not None}
    for pair in itertools.product((None, *VALUES), repeat=len(KEYS))
]


def near(**labels: str) -> SelectorPeer:
    return SelectorPeer(pod_selector=LabelSelector(match_labels=tuple(sorted(labels.items()))))


def far(name: str, **labels: str) -> SelectorPeer:
    return SelectorPeer(pod_selector=near(**labels).pod_selector, namespace_selector=namespace_selector(name))


def selected(peers: list[PolicyPeer]) -> set[tuple[str, tuple[tuple[str, str], ...]]]:
    """Which of all pods with these labels in three namespaces; "" is the policy's own."""
    found = set()
    for namespace, labels in itertools.product(("", "x", "y"), EVERY_LABELS):
        for peer in peers:
            assert isinstance(peer, SelectorPeer)
            spaces, pods = peer.namespace_selector, peer.pod_selector
            there = namespace == "" if spaces is None else spaces.matches({"kubernetes.io/metadata.name": namespace})
            if there and (pods is None or pods.matches(labels)):
                found.add((namespace, tuple(labels.items())))
    return found


@pytest.mark.parametrize("seed", range(60))
def test_what_is_merged_selects_the_same_pods(seed: int) -> None:
    randomly = random.Random(seed)
    every = [labels for labels in EVERY_LABELS if labels]
    peers: list[PolicyPeer] = []
    for labels in randomly.sample(every, randomly.randint(1, 14)):
        place = randomly.choice(("", "x", "y"))
        peers.append(far(place, **labels) if place else near(**labels))
    found = merged(peers)
    assert selected(found) == selected(peers)
    assert len(found) <= len(peers)
    assert len(_lines(found)) <= len(_lines(peers))
    randomly.shuffle(peers)
    assert set(merged(peers)) == set(found)


def _lines(peers: list[PolicyPeer]) -> list[str]:
    policy = NetworkPolicy(
        namespace="n", name="p", pod_selector=LabelSelector(), policy_types=None, ingress=(Rule(peers=tuple(peers)),)
    )
    return render([policy]).splitlines()


def test_two_of_the_own_namespace_stay_two_and_two_of_another_become_one() -> None:
    assert merged([near(app="a"), near(app="b")]) == [near(app="a"), near(app="b")]
    assert len(merged([near(app="a"), near(app="b"), near(app="c")])) == 1
    assert len(merged([far("x", app="a"), far("x", app="b")])) == 1
    assert len(merged([far("x", app="a"), far("y", app="b")])) == 2


def test_what_has_no_single_label_is_left_alone() -> None:
    peers: list[PolicyPeer] = [every_pod(), whole_namespace(), IPBlock(cidr=ip_network("203.0.113.0/24"))]
    assert merged(peers) == peers


def test_long_lists_are_cut() -> None:
    found = merged([near(app=f"a{n:03}") for n in range(MOST_VALUES + 1)])
    selectors = [peer.pod_selector for peer in found if isinstance(peer, SelectorPeer)]
    sizes = [len(s.match_expressions[0].values) for s in selectors if s is not None]
    assert sizes == [MOST_VALUES, 1]


def test_what_is_written_with_expressions_stays_as_it_is() -> None:
    exists = LabelSelector(match_expressions=(Requirement(key="app", operator=Operator.EXISTS),))
    peers: list[PolicyPeer] = [
        SelectorPeer(pod_selector=exists, namespace_selector=LabelSelector()),
        SelectorPeer(pod_selector=near(app="a").pod_selector, namespace_selector=exists),
        SelectorPeer(pod_selector=near(app="b").pod_selector, namespace_selector=exists),
        SelectorPeer(namespace_selector=LabelSelector()),
    ]
    assert merged(peers) == peers
