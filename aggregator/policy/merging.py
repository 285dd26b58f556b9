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
_Group = tuple[LabelSelector | None, str, _Labels]  # the namespaces, the key that differs, the labels that do not


def merged(peers: Sequence[PolicyPeer]) -> list[PolicyPeer]:
    """The peers, fewer where some differ in one value alone; the rest as they are, in their order."""
    groups: dict[_Group, dict[str, SelectorPeer]] = defaultdict(dict)
    for peer in peers:
        if isinstance(peer, SelectorPeer) and peer.pod_selector is not None and not peer.pod_selector.match_expressions:
            labels = peer.pod_selector.match_labels
            for at, (key, value) in enumerate(labels):
                groups[peer.namespace_selector, key, labels[:at] + labels[at + 1 :]][value] = peer
    left = dict.fromkeys(peers)
    found: list[PolicyPeer] = []
    for group, by_value in sorted(groups.items(), key=_largest_first):
        open_values = sorted(value for value, peer in by_value.items() if peer in left)
        if len(open_values) < (_FEWEST_NEAR if group[0] is None else _FEWEST_FAR):
            continue
        for value in open_values:
            del left[by_value[value]]
        found += [
            _listed(group, tuple(open_values[start : start + MOST_VALUES]))
            for start in range(0, len(open_values), MOST_VALUES)
        ]
    return [*found, *left]


def _largest_first(item: tuple[_Group, dict[str, SelectorPeer]]) -> tuple[int, _Labels, str, _Labels]:
    (namespaces, key, same), by_value = item
    return -len(by_value), () if namespaces is None else namespaces.match_labels, key, same


def _listed(group: _Group, values: tuple[str, ...]) -> SelectorPeer:
    namespaces, key, same = group
    differing = Requirement(key=key, operator=Operator.IN, values=values)
    return SelectorPeer(
        pod_selector=LabelSelector(match_labels=same, match_expressions=(differing,)), namespace_selector=namespaces
    )
