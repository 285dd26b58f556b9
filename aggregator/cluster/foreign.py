"""Policies that are no NetworkPolicies: admin policies with their meaning, plug-ins' own ones as what they may touch.

Enters: raw objects. Leaves: AdminPolicy, or ForeignPolicy (a verdict that it could change is UNKNOWN). Invariant: where
a selector cannot be read as one of labels, the policy may select any pod.
"""

from collections.abc import Mapping
from typing import Any

from aggregator.cluster.reduce import Raw
from aggregator.errors import InputError
from aggregator.model.adminpolicy import AdminPolicy, ForeignPolicy
from aggregator.model.networkpolicy import LabelSelector
from aggregator.model.protocol import Direction
from aggregator.policy.manifest.adminparse import parse_admin_policy
from aggregator.policy.manifest.field import Field
from aggregator.policy.manifest.parse import parse_selector

ADMIN_KINDS = frozenset({"AdminNetworkPolicy", "BaselineAdminNetworkPolicy", "ClusterNetworkPolicy"})
CILIUM_KINDS = frozenset({"CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy"})
CALICO_KINDS = frozenset({"CalicoNetworkPolicy", "GlobalNetworkPolicy"})
ANTREA_KINDS = frozenset({"AntreaNetworkPolicy", "AntreaClusterNetworkPolicy"})
EXTRA_KINDS = ADMIN_KINDS | CILIUM_KINDS | CALICO_KINDS | ANTREA_KINDS


def kind_of(raw: Raw) -> str:
    """The kind by which the view knows an object: Calico's and Antrea's NetworkPolicy are not Kubernetes' own."""
    kind, group = str(raw.get("kind") or ""), str(raw.get("apiVersion") or "").partition("/")[0]
    if group == "crd.antrea.io" and f"Antrea{kind}" in ANTREA_KINDS:
        return f"Antrea{kind}"
    return "CalicoNetworkPolicy" if "projectcalico.org" in group and kind == "NetworkPolicy" else kind


def parse_extra(kind: str, raw: Raw) -> AdminPolicy | ForeignPolicy:
    """Raises InputError when an admin policy makes no sense."""
    if kind in ADMIN_KINDS:
        return parse_admin_policy(raw)
    metadata, spec = raw.get("metadata") or {}, raw.get("spec") or {}
    selector, directions = _touched(kind, raw, spec)
    return ForeignPolicy(
        kind=kind,
        name=str(metadata["name"]),
        namespace=str(metadata.get("namespace") or ""),
        pod_selector=selector,
        directions=directions,
    )


def _touched(kind: str, raw: Raw, spec: Raw) -> tuple[LabelSelector | None, frozenset[Direction]]:
    """Whom it may act on, and in which directions."""
    if kind in ANTREA_KINDS:  # its rules say it, too, and groups that are objects of their own
        return None, frozenset(Direction)
    return _cilium(raw) if kind in CILIUM_KINDS else _calico(spec)


def _cilium(raw: Raw) -> tuple[LabelSelector | None, frozenset[Direction]]:
    specs = [raw["spec"]] if isinstance(raw.get("spec"), Mapping) else list(raw.get("specs") or ())
    directions = {
        direction
        for spec in specs
        for direction, keys in (
            (Direction.INGRESS, ("ingress", "ingressDeny")),
            (Direction.EGRESS, ("egress", "egressDeny")),
        )
        if any(spec.get(key) is not None for key in keys)
    }
    selector = _cilium_selector(specs[0].get("endpointSelector")) if len(specs) == 1 else None
    return selector, frozenset(directions or Direction)


def _cilium_selector(selector: Any) -> LabelSelector | None:
    """Cilium's keys carry a source (k8s:, any:); those of other sources are no pod labels."""
    if not isinstance(selector, Mapping):
        return None
    keys = [*(selector.get("matchLabels") or {}), *(e.get("key") for e in selector.get("matchExpressions") or ())]
    if any(str(key).startswith(("reserved:", "k8s:io.kubernetes.pod.", "io.kubernetes.pod.")) for key in keys):
        return None
    plain = {
        "matchLabels": {_plain(key): value for key, value in (selector.get("matchLabels") or {}).items()},
        "matchExpressions": [{**e, "key": _plain(e.get("key"))} for e in selector.get("matchExpressions") or ()],
    }
    try:
        return parse_selector(Field(plain))
    except InputError:
        return None


def _plain(key: object) -> str:
    source, colon, rest = str(key).partition(":")
    return rest if colon and source in {"k8s", "any"} else str(key)


def _calico(spec: Raw) -> tuple[LabelSelector | None, frozenset[Direction]]:
    """A selector is an expression of Calico's own: only "all pods" is read."""
    every = str(spec.get("selector") or "all()").strip() == "all()" and not spec.get("namespaceSelector")
    types = spec.get("types") or [key.capitalize() for key in ("ingress", "egress") if spec.get(key) is not None]
    directions = frozenset(d for d in Direction if d.value in types)
    return LabelSelector() if every else None, directions or frozenset(Direction)
