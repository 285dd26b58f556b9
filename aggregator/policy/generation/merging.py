"""Peers of one rule that differ in one label's value become one peer with a list of values.

Enters: the peers of one rule. Leaves: fewer of them. Invariant: what is merged selects what its parts selected, of all
pods that may ever be (`k=a` or `k=b` is `k In (a, b)`), and only where that reads shorter (section D, 5).
"""

from collections import defaultdict
from collections.abc import Sequence

from aggregator.model.networkpolicy import LabelSelector, Operator, PolicyPeer, Requirement, SelectorPeer

MOST_VALUES = 100  # in one list: a policy that is too large is split between peers
_FEWEST_NEAR = 3  # in the policy's own namespace, two peers read shorter than one with a list of two
_FEWEST_FAR = 2  # elsewhere the namespace is repeated with each peer

_Labels = tuple[tuple[str, str], ...]
_Group = tuple[_Labels | None, str, _Labels]  # the namespace's labels, the key that differs, the labels that do not


def merged(peers: Sequence[PolicyPeer]) -> list[PolicyPeer]:
    """The peers, fewer where some differ in one value alone; the rest as they are, in their order."""
    beside: dict[_Labels | None, list[int]] = defaultdict(list)
    for number, peer in enumerate(peers):
        if isinstance(peer, SelectorPeer):
            spaces = peer.namespace_selector
            beside[None if spaces is None else spaces.match_labels].append(number)
    groups: dict[_Group, dict[str, int]] = defaultdict(dict)
    for place, numbers in beside.items():
        if len(numbers) >= _fewest(place):
            for number in numbers:
                _sort_in(groups, place, number, peers[number])
    left = dict(enumerate(peers))
    found: list[PolicyPeer] = []
    for (place, key, same), by_value in sorted(groups.items(), key=_largest_first) if groups else ():
        values = sorted(value for value, number in by_value.items() if number in left)
        if len(values) < _fewest(place):
            continue
        first = left[by_value[values[0]]]
        assert isinstance(first, SelectorPeer)
        for value in values:
            del left[by_value[value]]
        for start in range(0, len(values), MOST_VALUES):
            listed = Requirement(key=key, operator=Operator.IN, values=tuple(values[start : start + MOST_VALUES]))
            pods = LabelSelector(match_labels=same, match_expressions=(listed,))
            found.append(SelectorPeer(pod_selector=pods, namespace_selector=first.namespace_selector))
    return [*found, *left.values()] if found else list(peers)


def _sort_in(groups: dict[_Group, dict[str, int]], place: _Labels | None, number: int, peer: PolicyPeer) -> None:
    """Under each of its labels; only what names pods and namespaces by labels alone."""
    if not isinstance(peer, SelectorPeer) or peer.pod_selector is None or peer.pod_selector.match_expressions:
        return
    if peer.namespace_selector is not None and peer.namespace_selector.match_expressions:
        return
    labels = peer.pod_selector.match_labels
    for at, (key, value) in enumerate(labels):
        groups[place, key, labels[:at] + labels[at + 1 :]][value] = number


def _fewest(place: _Labels | None) -> int:
    return _FEWEST_NEAR if place is None else _FEWEST_FAR


def _largest_first(item: tuple[_Group, dict[str, int]]) -> tuple[int, _Labels, str, _Labels]:
    (place, key, same), by_value = item
    return -len(by_value), place or (), key, same
