"""Wrong evaluators, each as one change of one named function's source.

A mutation is (owner, function, what stands there, what it becomes). It is compiled in the function's own module and put
wherever the original was imported to, so the rest of the engine runs on unchanged.
"""

import inspect
import sys
import textwrap
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Any

from aggregator.model import networkpolicy
from aggregator.policy.evaluation import evaluate as evaluating
from aggregator.policy.evaluation import matching
from aggregator.policy.manifest import parse


@dataclass(frozen=True, kw_only=True)
class Mutation:
    name: str
    owner: Any
    function: str
    old: str
    new: str
    reparse: bool = False  # it changes how policies are read, not how they are judged

    def apply(self, monkeypatch) -> None:
        original = inspect.getattr_static(self.owner, self.function)
        plain = original.fget if isinstance(original, property) else original
        source = textwrap.dedent(inspect.getsource(plain))
        assert source.count(self.old) == 1, f"{self.old!r} stands {source.count(self.old)} times in {self.function}"
        made: dict[str, Any] = {}
        exec(compile(source.replace(self.old, self.new), f"<{self.name}>", "exec"), plain.__globals__, made)
        mutated = made[self.function]
        if not isinstance(self.owner, ModuleType):
            monkeypatch.setattr(self.owner, self.function, mutated)
            return
        for module in list(sys.modules.values()):
            if module.__name__.startswith("aggregator.") and getattr(module, self.function, None) is original:
                monkeypatch.setattr(module, self.function, mutated)


assert not isinstance(inspect.getattr_static(networkpolicy.NetworkPolicy, "directions"), cached_property)

_REQUIREMENT, _SELECTOR, _POLICY = networkpolicy.Requirement, networkpolicy.LabelSelector, networkpolicy.NetworkPolicy
_IN_FORCE = "return not rule.ports or any_of("

MUTATIONS = (
    Mutation(
        name="egress side ignored",
        owner=evaluating,
        function="evaluate",
        old="egress=explain_direction(Direction.EGRESS, everything, cluster, connection, profile)",
        new="egress=default_allow(Direction.EGRESS)",
    ),
    Mutation(
        name="ingress side ignored",
        owner=evaluating,
        function="evaluate",
        old="ingress=explain_direction(Direction.INGRESS, everything, cluster, connection, profile)",
        new="ingress=default_allow(Direction.INGRESS)",
    ),
    Mutation(
        name="peers of a rule ANDed",
        owner=evaluating,
        function="rule_peers_match",
        old="any_of(peer_matches(peer, namespace, view) for peer in rule.peers)",
        new="all(peer_matches(peer, namespace, view) is True for peer in rule.peers)",
    ),
    Mutation(
        name="only first matching policy",
        owner=evaluating,
        function="explain_direction",
        old="if isinstance(policy, NetworkPolicy) and selects(policy, view)]",
        new="if isinstance(policy, NetworkPolicy) and selects(policy, view)][:1]",
    ),
    Mutation(
        name="a non-allowing policy denies",
        owner=evaluating,
        function="explain_native",
        old="any_of(match for of_policy in matches for match in of_policy)",
        new="all(any_of(of_policy) is True for of_policy in matches)",
    ),
    Mutation(
        name="peers x ports across rules",
        owner=evaluating,
        function="rule_matches",
        old="both(rule_peers_match(rule, policy.namespace, view), rule_ports_match(rule, view))",
        new="both(any_of(rule_peers_match(r, policy.namespace, view) for r in policy.rules(view.direction)),"
        " rule_ports_match(rule, view))",
    ),
    Mutation(
        name="explicit empty list allows (seen in kube-network-policies)",
        owner=evaluating,
        function="rule_matches",
        old="for rule in policy.rules(view.direction)",
        new="for rule in policy.rules(view.direction) or (Rule(),)",
    ),
    Mutation(
        name="rule {} denies",
        owner=evaluating,
        function="rule_matches",
        old="for rule in policy.rules(view.direction)",
        new="for rule in policy.rules(view.direction) if rule.peers or rule.ports",
    ),
    Mutation(
        name="policy acts in all namespaces",
        owner=evaluating,
        function="selects",
        old="policy.namespace == view.subject.namespace\n",
        new="True\n",
    ),
    Mutation(
        name="empty podSelector selects nothing",
        owner=evaluating,
        function="selects",
        old="and policy.pod_selector.matches(",
        new="and not policy.pod_selector.is_empty and policy.pod_selector.matches(",
    ),
    Mutation(
        name="ns+pod selector ORed",
        owner=matching,
        function="_pod_matches",
        old="    pods, namespaces = peer.pod_selector, peer.namespace_selector\n",
        new="    pods, namespaces = peer.pod_selector, peer.namespace_selector\n"
        "    if pods and namespaces:\n"
        "        here = labels_of_namespace(cluster, pod.namespace)\n"
        "        return pods.matches(dict(pod.labels)) or namespaces.matches(here)\n",
    ),
    Mutation(
        name="bare podSelector = any namespace",
        owner=matching,
        function="_pod_matches",
        old="within = pod.namespace == namespace",
        new="within = True",
    ),
    Mutation(
        name="bare namespaceSelector = own namespace only",
        owner=matching,
        function="_pod_matches",
        old="within = namespaces.matches(labels_of_namespace(cluster, pod.namespace))",
        new="within = namespaces.matches(labels_of_namespace(cluster, pod.namespace))"
        " and (pods is not None or pod.namespace == namespace)",
    ),
    Mutation(
        name="namespaceSelector {} matches external",
        owner=matching,
        function="_selector_matches",
        old="found = unresolved(view) or False",
        new="found = namespaces is not None and namespaces.is_empty",
    ),
    Mutation(
        name="ns+pod: pod part ignored",
        owner=matching,
        function="_pod_matches",
        old="(pods is None or pods",
        new="(pods is None or namespaces is not None or pods",
    ),
    Mutation(
        name="except ignored",
        owner=matching,
        function="block_matches",
        old="ip in cidr and not any(ip in network for network in excepts)",
        new="ip in cidr",
    ),
    Mutation(
        name="v4 default route matches v6",
        owner=matching,
        function="block_matches",
        old="ip in cidr and not",
        new="cidr.prefixlen == 0 or ip in cidr and not",
    ),
    Mutation(
        name="v4 default route matches v6, less its excepts",
        owner=matching,
        function="block_matches",
        old="ip in cidr and not",
        new="(ip in cidr or cidr.prefixlen == 0) and not",
    ),
    Mutation(
        name="ipBlock never matches pods",
        owner=matching,
        function="block_matches",
        old='seen = _answered(view.profile.ipblock_matches_pods, "whether ipBlock matches pods")',
        new="seen = False",
    ),
    Mutation(
        name="hostNetwork pods are ordinary pods",
        owner=matching,
        function="acts_as_node",
        old="return pod.host_network",
        new="return False",
    ),
    Mutation(
        name="empty ports = no port",
        owner=evaluating,
        function="rule_ports_match",
        old=_IN_FORCE,
        new="return any_of(",
    ),
    Mutation(
        name="default protocol = any",
        owner=parse,
        function="_rule",
        old='ports=tuple(_port(port) for port in field["ports"].items())',
        new='ports=tuple(__import__("dataclasses").replace(_port(port), protocol=protocol)'
        ' for port in field["ports"].items()'
        ' for protocol in (Protocol if port["protocol"].absent else [_port(port).protocol]))',
        reparse=True,
    ),
    Mutation(
        name="protocol-only entry ignores protocol (seen in netpol-analyzer eval)",
        owner=matching,
        function="port_matches",
        old="if port.protocol is not connection.protocol:",
        new="if port.protocol is not connection.protocol and port.port is not None:",
    ),
    Mutation(
        name="endPort ignored",
        owner=matching,
        function="_number_matches",
        old="return number <= view.connection.port <= last",
        new="return number == view.connection.port",
    ),
    Mutation(
        name="endPort exclusive",
        owner=matching,
        function="_number_matches",
        old="return number <= view.connection.port <= last",
        new="return number == view.connection.port or number < view.connection.port < last",
    ),
    Mutation(
        name="named port ignores protocol",
        owner=matching,
        function="port_matches",
        old="    if port.protocol is not connection.protocol:\n        return False\n",
        new="    if isinstance(port.port, str) and isinstance(connection.dst, PodEndpoint):\n"
        "        return any(p.name == port.port and p.port == connection.port for p in connection.dst.pod.ports)\n"
        "    if port.protocol is not connection.protocol:\n        return False\n",
    ),
    Mutation(
        name="named port ignores the container's protocol",
        owner=matching,
        function="named_port_matches",
        old="port.protocol is view.connection.protocol and ",
        new="",
    ),
    Mutation(
        name="named port resolved on any pod",
        owner=matching,
        function="named_port_matches",
        old="for port in pod.ports",
        new="for anyone in view.cluster.pods for port in anyone.ports",
    ),
    Mutation(
        name="named port matches any port of an external IP",
        owner=matching,
        function="named_port_matches",
        old="return False",
        new="return isinstance(view.connection.dst, AddressEndpoint)",
    ),
    Mutation(
        name="policyTypes default = Ingress only",
        owner=_POLICY,
        function="directions",
        old="frozenset({Direction.INGRESS, Direction.EGRESS} if self.egress else {Direction.INGRESS})",
        new="frozenset({Direction.INGRESS})",
    ),
    Mutation(
        name="policyTypes default = both",
        owner=_POLICY,
        function="directions",
        old="frozenset({Direction.INGRESS, Direction.EGRESS} if self.egress else {Direction.INGRESS})",
        new="frozenset(Direction)",
    ),
    Mutation(
        name="policyTypes default from present keys (seen in NCA)",
        owner=parse,
        function="parse_policy",
        old='policy_types=_policy_types(spec["policyTypes"])',
        new='policy_types=_policy_types(spec["policyTypes"]) or tuple(direction for direction, key in'
        ' ((Direction.INGRESS, "kind"), (Direction.EGRESS, "egress")) if key == "kind" or key in spec.mapping())',
        reparse=True,
    ),
    Mutation(
        name="rules imply type even when policyTypes is explicit",
        owner=_POLICY,
        function="directions",
        old="return frozenset(self.policy_types)",
        new="return frozenset(self.policy_types) | {d for d in Direction if self.rules(d)}",
    ),
    Mutation(
        name="NotIn needs the key (seen in cyclonus)",
        owner=_REQUIREMENT,
        function="matches",
        old="self.key not in labels or labels[self.key] not in self.values",
        new="self.key in labels and labels[self.key] not in self.values",
    ),
    Mutation(
        name="missing label equals empty value (seen in cyclonus)",
        owner=_SELECTOR,
        function="matches",
        old="labels.get(key) != value",
        new='labels.get(key, "") != value',
    ),
    Mutation(
        name="matchExpressions ignored",
        owner=_SELECTOR,
        function="matches",
        old="in self.match_expressions",
        new="in ()",
    ),
    Mutation(
        name="DoesNotExist read as Exists",
        owner=_REQUIREMENT,
        function="matches",
        old="case Operator.DOES_NOT_EXIST:\n            return self.key not in labels",
        new="case Operator.DOES_NOT_EXIST:\n            return self.key in labels",
    ),
    Mutation(
        name="own node not exempt",
        owner=evaluating,
        function="exemption",
        old="return DirectionOutcome.NODE_OWN_POD\n"
        "        case NodeEndpoint(node=node) if node.name == pod.node_name:\n"
        "            return DirectionOutcome.NODE_OWN_POD",
        new="return None",
    ),
    Mutation(
        name="own pod not exempt",
        owner=evaluating,
        function="exemption",
        old="return DirectionOutcome.SELF",
        new="return None",
    ),
    Mutation(
        name="namespace name label not defaulted",
        owner=matching,
        function="labels_of_namespace",
        old="return cluster.namespace_labels.get(name) or {NAMESPACE_NAME_LABEL: name}",
        new="return next((dict(n.labels) for n in cluster.namespaces if n.name == name), {})",
    ),
)
