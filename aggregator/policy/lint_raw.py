"""What only the object as written shows, because parsing evens it out: host bits, unknown fields, a missing namespace.

Enters: a raw NetworkPolicy object. Leaves: Findings. Anything that is not shaped as expected is left to validation.
"""

from collections.abc import Iterator, Mapping
from ipaddress import ip_network
from typing import Any

from aggregator.model.finding import Finding, Severity
from aggregator.policy.lint_codes import Code
from aggregator.policy.lint_scope import closest

_SELECTOR: Mapping[str, Any] = {
    "matchLabels": None,
    "matchExpressions": [{"key": None, "operator": None, "values": None}],
}
_PORT = {"protocol": None, "port": None, "endPort": None}
_PEER = {
    "podSelector": _SELECTOR,
    "namespaceSelector": _SELECTOR,
    "ipBlock": {"cidr": None, "except": None},
}
# None = anything goes below; a list = each of its items.
_SHAPE: Mapping[str, Any] = {
    "apiVersion": None,
    "kind": None,
    "metadata": None,
    "status": None,
    "spec": {
        "podSelector": _SELECTOR,
        "policyTypes": None,
        "ingress": [{"from": [_PEER], "ports": [_PORT]}],
        "egress": [{"to": [_PEER], "ports": [_PORT]}],
    },
}


def check_object(obj: Mapping[str, Any]) -> Iterator[Finding]:
    """Findings on one NetworkPolicy object as it is written."""
    metadata = obj.get("metadata") if isinstance(obj.get("metadata"), Mapping) else {}
    name = f"{(metadata or {}).get('namespace') or 'default'}/{(metadata or {}).get('name', '')}"
    if metadata and not metadata.get("namespace"):
        yield Finding(
            code=Code.MISSING_NAMESPACE,
            severity=Severity.WARNING,
            subject=name,
            message="has no metadata.namespace: it goes where kubectl happens to point, else to default",
            way_out="write metadata.namespace",
        )
    yield from _unknown(name, obj, _SHAPE, "")
    for path, cidr in _cidrs(obj.get("spec"), "spec"):
        if proper := _without_host_bits(cidr):
            yield Finding(
                code=Code.HOST_BITS,
                severity=Severity.WARNING,
                subject=f"{name}:{path}",
                message=f"{cidr} has host bits set: it means {proper}, and newer API servers reject it",
                way_out=f"write {proper}",
            )


def _unknown(name: str, value: object, shape: object, path: str) -> Iterator[Finding]:
    if isinstance(shape, list) and isinstance(value, list):
        for index, item in enumerate(value):
            yield from _unknown(name, item, shape[0], f"{path}[{index}]")
    elif isinstance(shape, Mapping) and isinstance(value, Mapping):
        for key, inner in value.items():
            where = f"{path}.{key}" if path else str(key)
            if key in shape:
                yield from _unknown(name, inner, shape[key], where)
            else:
                near = closest(str(key), shape)
                yield Finding(
                    code=Code.UNKNOWN_FIELD,
                    severity=Severity.ERROR,
                    subject=f"{name}:{where}",
                    message="the API knows no such field and may drop it silently",
                    way_out=f"did you mean {near}?" if near else "remove it",
                )


def _cidrs(value: object, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _cidrs(item, f"{path}[{index}]")
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            where = f"{path}.{key}"
            if key == "cidr" and isinstance(inner, str):
                yield where, inner
            elif key == "except" and isinstance(inner, list):
                yield from ((f"{where}[{i}]", item) for i, item in enumerate(inner) if isinstance(item, str))
            else:
                yield from _cidrs(inner, where)


def _without_host_bits(text: str) -> str:
    """The network that a CIDR with host bits means; "" when it has none or is no CIDR at all."""
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        return ""
    try:
        ip_network(text)
    except ValueError:
        return str(network)
    return ""
