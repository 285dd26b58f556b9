"""Validate: would the API server take this NetworkPolicy object (NP-52 to NP-60)?

Enters: the object as written. Leaves: every Violation with the field's path: ERROR for what the API refuses, WARNING
for what it takes but should not have been written (sloppy CIDRs, fields that it drops without a word).
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from ipaddress import ip_network
from typing import Any

from aggregator.errors import InputError
from aggregator.model.address import IPNetwork
from aggregator.model.finding import Severity
from aggregator.policy.manifest.field import Field
from aggregator.policy.manifest.parse import API_VERSIONS, parse_cidr

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_QUALIFIED = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_PORT_NAME = re.compile(r"(?!.*--)[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_MAX_SUBDOMAIN, _MAX_LABEL, _MAX_PORT_NAME = 253, 63, 15
_MAX_ANNOTATIONS_BYTES = 256 * 1024
_MAX_OBJECT_BYTES = 1536 * 1024  # etcd's default limit on a request

_SELECTOR_KEYS = {"matchLabels": None, "matchExpressions": {"key": None, "operator": None, "values": None}}
_PEER_KEYS = {
    "podSelector": _SELECTOR_KEYS,
    "namespaceSelector": _SELECTOR_KEYS,
    "ipBlock": {"cidr": None, "except": None},
}
_PORT_KEYS = {"protocol": None, "port": None, "endPort": None}
_KEYS: Mapping[str, Any] = {
    "apiVersion": None,
    "kind": None,
    "metadata": None,
    "status": None,
    "spec": {
        "podSelector": _SELECTOR_KEYS,
        "policyTypes": None,
        "ingress": {"from": _PEER_KEYS, "ports": _PORT_KEYS},
        "egress": {"to": _PEER_KEYS, "ports": _PORT_KEYS},
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One thing wrong with an object; `field` is its path, as the API server writes it."""

    field: str
    message: str
    severity: Severity = Severity.ERROR


def validate(obj: Mapping[str, Any], *, strict_cidrs: bool = False) -> tuple[Violation, ...]:
    """All violations, sorted by field. `strict_cidrs`: the API server's StrictIPCIDRValidation is on (NP-60)."""
    found = _Validation(Severity.ERROR if strict_cidrs else Severity.WARNING)
    found.whole(Field(obj))
    return tuple(sorted(found.violations, key=lambda v: (v.field, v.message)))


def is_accepted(violations: Iterable[Violation]) -> bool:
    return all(violation.severity is not Severity.ERROR for violation in violations)


class _Validation:
    """Collects instead of stopping at the first."""

    def __init__(self, sloppy_cidr: Severity) -> None:
        self.violations: list[Violation] = []
        self._sloppy_cidr = sloppy_cidr

    def add(self, field: Field, message: str, severity: Severity = Severity.ERROR) -> None:
        self.violations.append(Violation(field=field.path, message=message, severity=severity))

    def check(self, check: Callable[[Field], None], field: Field) -> None:
        """A value of the wrong type ends this check alone."""
        try:
            check(field)
        except InputError as exc:
            self.violations.append(Violation(field=exc.field, message=exc.reason))

    def whole(self, root: Field) -> None:
        if root["kind"].value != "NetworkPolicy":
            self.add(root["kind"], "must be NetworkPolicy")
        if root["apiVersion"].value != API_VERSIONS[0]:
            self.add(root["apiVersion"], f"must be {API_VERSIONS[0]}")
        self.check(self.metadata, root["metadata"])
        self.check(self.spec, root["spec"])
        self.check(lambda field: self.unknown_fields(field, _KEYS), root)
        if len(json.dumps(root.value, default=str).encode()) > _MAX_OBJECT_BYTES:
            self.add(root, "is larger than 1.5 MiB, which the API server's store refuses")

    def metadata(self, metadata: Field) -> None:
        name, namespace = metadata["name"], metadata["namespace"]
        if not name.text(default=""):
            self.add(name, "is required")
        elif len(name.text()) > _MAX_SUBDOMAIN or not _SUBDOMAIN.fullmatch(name.text()):
            self.add(name, "must be a lowercase DNS subdomain of at most 253 characters")
        if text := namespace.text(default=""):
            self._expect(namespace, len(text) <= _MAX_LABEL and _LABEL.fullmatch(text), "must be a DNS label")
        self.check(self.labels, metadata["labels"])
        self.check(self.annotations, metadata["annotations"])

    def annotations(self, field: Field) -> None:
        if sum(len(key.encode()) + len(value.encode()) for key, value in field.labels()) > _MAX_ANNOTATIONS_BYTES:
            self.add(field, "are larger than 256 KiB together")

    def labels(self, field: Field) -> None:
        for key, value in field.labels():
            self._expect(field, _is_label_key(key), f"{key!r} is not a label key")
            self._expect(field, _is_label_value(value), f"{value!r} is not a label value of at most 63 characters")

    def spec(self, spec: Field) -> None:
        self.check(self.selector, spec["podSelector"])
        self.check(self.policy_types, spec["policyTypes"])
        for key, peers in (("ingress", "from"), ("egress", "to")):
            self.check(lambda rules, peers=peers: self.rules(rules, peers), spec[key])  # type: ignore[misc]

    def policy_types(self, field: Field) -> None:
        types = list(field.items())
        if len(types) > 2:
            self.add(field, "must have at most two entries")
            return
        for item in types:
            self._expect(item, item.value in ("Ingress", "Egress"), f"{item.value!r} is not Ingress or Egress")

    def rules(self, rules: Field, peers_key: str) -> None:
        for rule in rules.items():
            for key, check in (("ports", self.port), (peers_key, self.peer)):
                self.check(lambda items, check=check: self._each(items, check), rule[key])  # type: ignore[misc]

    def _each(self, items: Field, check: Callable[[Field], None]) -> None:
        for item in items.items():
            self.check(check, item)

    def port(self, entry: Field) -> None:
        protocol, port, end_port = entry["protocol"], entry["port"], entry["endPort"]
        if not protocol.absent:
            self._expect(protocol, protocol.value in ("TCP", "UDP", "SCTP"), "must be TCP, UDP or SCTP")
        if port.absent:
            self._expect(end_port, end_port.absent, "needs a numeric port")
        elif isinstance(port.value, str):
            self._expect(port, _is_port_name(port.value), "must be a port name: at most 15 of a-z 0-9 -, a letter")
            self._expect(end_port, end_port.absent, "needs a numeric port")
        else:
            number = port.number()
            self._expect(port, 1 <= number <= 65535, "must be 1 to 65535")
            if not end_port.absent:
                self._expect(end_port, end_port.number() >= number, "must not be below port")
                self._expect(end_port, 1 <= end_port.number() <= 65535, "must be 1 to 65535")

    def peer(self, peer: Field) -> None:
        present = [key for key in ("podSelector", "namespaceSelector", "ipBlock") if not peer[key].absent]
        if not present:
            self.add(peer, "must name a podSelector, a namespaceSelector or an ipBlock")
        if "ipBlock" in present and len(present) > 1:
            self.add(peer, "ipBlock excludes podSelector and namespaceSelector")
        self.check(self.selector, peer["podSelector"])
        self.check(self.selector, peer["namespaceSelector"])
        if "ipBlock" in present:
            self.check(self.ip_block, peer["ipBlock"])

    def ip_block(self, block: Field) -> None:
        cidr, network = block["cidr"], None
        if not cidr.value:
            self.add(cidr, "is required")
        else:
            network = self.cidr(cidr)
        for item in block["except"].items():
            excepted = self.cidr(item)
            if network is not None and excepted is not None and not _strictly_within(excepted, network):
                self.add(item, f"must be a strict subset of {network}")

    def cidr(self, field: Field) -> IPNetwork | None:
        try:
            network = parse_cidr(field)
        except InputError as exc:
            self.add(field, exc.reason)
            return None
        if not _is_canonical(field.text(), network):
            self.add(field, f"should be written {network}: some API servers refuse it as it is", self._sloppy_cidr)
        return network

    def selector(self, selector: Field) -> None:
        self.check(self.labels, selector["matchLabels"])
        for item in selector["matchExpressions"].items():
            self.check(self.requirement, item)

    def requirement(self, item: Field) -> None:
        key, operator, values = item["key"], item["operator"], item["values"]
        self._expect(key, _is_label_key(key.text(default="")), f"{key.value!r} is not a label key")
        texts = [(value, value.text(default="")) for value in values.items()]
        match operator.value:
            case "In" | "NotIn":
                self._expect(values, texts, f"{operator.value} needs values")
            case "Exists" | "DoesNotExist":
                self._expect(values, not texts, f"{operator.value} takes no values")
            case _:
                self.add(operator, f"{operator.value!r} is not In, NotIn, Exists or DoesNotExist")
        for value, text in texts:
            self._expect(value, _is_label_value(text), "is not a label value of at most 63 characters")

    def unknown_fields(self, field: Field, known: Mapping[str, Any]) -> None:
        """The API server drops them without a word unless asked to be strict, as kubectl asks since 1.27."""
        for key in field.mapping():
            child = field[key]
            if key not in known:
                near = get_close_matches(key, known, n=1, cutoff=0.6)
                hint = f"; is {near[0]} meant?" if near else ""
                self.add(child, f"unknown field, dropped by the API server{hint}", Severity.WARNING)
            elif known[key] is not None:
                for item in child.items() if isinstance(child.value, list) else [child]:
                    if isinstance(item.value, Mapping):
                        self.unknown_fields(item, known[key])

    def _expect(self, field: Field, condition: object, message: str) -> None:
        if not condition:
            self.add(field, message)


def _is_label_key(key: str) -> bool:
    prefix, slash, name = key.rpartition("/")
    if slash and not (len(prefix) <= _MAX_SUBDOMAIN and _SUBDOMAIN.fullmatch(prefix)):
        return False
    return len(name) <= _MAX_LABEL and _QUALIFIED.fullmatch(name) is not None


def _is_label_value(value: str) -> bool:
    return value == "" or (len(value) <= _MAX_LABEL and _QUALIFIED.fullmatch(value) is not None)


def _is_port_name(name: str) -> bool:
    return (
        len(name) <= _MAX_PORT_NAME and _PORT_NAME.fullmatch(name) is not None and re.search("[a-z]", name) is not None
    )


def _strictly_within(inner: IPNetwork, outer: IPNetwork) -> bool:
    return inner.version == outer.version and inner.prefixlen > outer.prefixlen and inner.network_address in outer


def _is_canonical(text: str, network: IPNetwork) -> bool:
    """No host bits, no leading zeros, no v4-mapped address. IPv6 may be spelt in more than one way."""
    if network.version == 4:
        return text == str(network)
    try:
        return ip_network(text) == network and not text.rpartition("/")[2].startswith("00")
    except ValueError:
        return False
