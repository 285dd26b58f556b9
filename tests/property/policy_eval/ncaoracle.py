"""network-config-analyzer as an oracle: an evaluator by other people, from PyPI, in pure Python.

It reads manifests from files and answers with boxes of (source, destination, protocol, port). Known differences:
its ipBlock never matches pods (as Cilium's); `egress: []` without policyTypes isolates egress, which the API does not;
rules of a direction that policyTypes does not list are refused, where the API ignores them (here they are taken out);
Exists and DoesNotExist beside a namespaceSelector look at the policy's namespace alone (here they become In, NotIn);
a namespace without a label counts as one with an empty value. The last one cannot be restated: `restatable` tells.
"""

import contextlib
import io
import json
import tempfile
import warnings
from pathlib import Path

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its own syntax is older than our warnings
    from nca.CoreDS.Peer import BasePeerSet
    from nca.NetworkConfig.ResourcesHandler import ResourcesHandler


class Oracle:
    """The connections that it allows between pods named `ns/pod` and addresses."""

    def __init__(self, namespaces, pods, policies):
        with (
            tempfile.TemporaryDirectory() as folder,
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            manifests = {"policies": map(_as_they_take_it, policies), "namespaces": namespaces, "pods": pods}
            paths = [_written(Path(folder) / f"{name}.yaml", objects) for name, objects in manifests.items()]
            config = ResourcesHandler().get_network_config([paths[0]], [paths[1]], [paths[2]], [])
            allowed = config.allowed_connections().all_allowed_conns
        self._peers = BasePeerSet()
        self._indexes = {str(peer): index for peer, index in self._peers.peer_to_index.items()}
        self._boxes = [dict(zip(allowed.active_dimensions, box, strict=True)) for box in allowed]

    def allows(self, src, dst, protocol_number, port):
        point = {
            "src_peers": self._index(src),
            "dst_peers": self._index(dst),
            "protocols": protocol_number,
            "dst_ports": port,
        }
        return any(all(point[name] in values for name, values in box.items() if name in point) for box in self._boxes)

    def _index(self, end):
        if isinstance(end, str):
            return self._peers.min_pod_index + self._indexes[end]
        base = self._peers.min_ipv4_index if end.version == 4 else self._peers.min_ipv6_index
        return base + int(end)


def _as_they_take_it(policy):
    """Without what the API ignores, policyTypes in the one order that they know."""
    spec = dict(policy["spec"])
    if "policyTypes" in spec:
        spec["policyTypes"] = sorted(spec["policyTypes"], reverse=True)
        for ignored in {"Ingress", "Egress"} - set(spec["policyTypes"]):
            spec.pop(ignored.lower(), None)
    for key in ("ingress", "egress"):
        if key in spec:
            spec[key] = [_rule_as_they_take_it(rule) for rule in spec[key]]
    return policy | {"spec": spec}


def restatable(policy):
    """Whether no namespaceSelector compares with the empty value."""
    rules = [*policy["spec"].get("ingress", []), *policy["spec"].get("egress", [])]
    peers = [peer for rule in rules for peer in (*rule.get("from", []), *rule.get("to", []))]
    found = [one for peer in peers for one in peer.get("namespaceSelector", {}).get("matchExpressions", [])]
    return not any("" in one.get("values", []) for one in found)


def _rule_as_they_take_it(rule):
    return {key: [_peer(item) if key in {"from", "to"} else item for item in items] for key, items in rule.items()}


def _peer(peer):
    return peer | {"podSelector": _by_values(peer["podSelector"])} if "podSelector" in peer else peer


def _by_values(selector):
    """The same selector, saying that a key exists by all the values that it can have."""
    if "matchExpressions" not in selector:
        return selector
    operators = {"Exists": "In", "DoesNotExist": "NotIn"}
    return {
        "matchExpressions": [
            one | {"operator": operators[one["operator"]], "values": ["a", "b", ""]}
            if one["operator"] in operators
            else one
            for one in selector["matchExpressions"]
        ]
    }


def _written(path, objects):
    path.write_text("\n---\n".join(json.dumps(obj) for obj in objects) or "---\n")
    return str(path)
