"""A plug-in's own policies among manifests: known to be there, their meaning not computed.

Enters: a raw object. Leaves: a ForeignPolicy with whom it may select, or None for any other object.
"""

from collections.abc import Mapping
from typing import Any

from aggregator.model.adminpolicy import ForeignPolicy
from aggregator.model.networkpolicy import LabelSelector
from aggregator.model.protocol import Direction

_CILIUM = {"CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy"}
_CALICO = {"NetworkPolicy", "GlobalNetworkPolicy", "StagedNetworkPolicy", "StagedGlobalNetworkPolicy"}
_ANTREA = {"NetworkPolicy", "ClusterNetworkPolicy"}


def foreign_policy(obj: Mapping[str, Any]) -> ForeignPolicy | None:
    """The plug-in's policy that this object is."""
    kind, version = str(obj.get("kind")), str(obj.get("apiVersion"))
    metadata, spec = _mapping(obj.get("metadata")), _mapping(obj.get("spec"))
    selector: LabelSelector | None = None
    directions = frozenset(Direction)
    if version.startswith("cilium.io/") and kind in _CILIUM:
        selector = _plain_selector(_mapping(spec.get("endpointSelector")))
        sections = {Direction.INGRESS: ("ingress", "ingressDeny"), Direction.EGRESS: ("egress", "egressDeny")}
        directions = frozenset(d for d, keys in sections.items() if any(spec.get(key) is not None for key in keys))
    elif "projectcalico.org/" in version and kind in _CALICO:
        types = spec.get("types")
        directions = frozenset(d for d in Direction if not isinstance(types, list) or d.value in types)
    elif not (version.startswith("crd.antrea.io/") and kind in _ANTREA):
        return None
    return ForeignPolicy(
        kind=kind,
        name=str(metadata.get("name")),
        namespace=str(metadata.get("namespace") or ""),
        pod_selector=selector,
        directions=directions,
    )


def _plain_selector(raw: Mapping[str, Any]) -> LabelSelector | None:
    """A selector of plain labels; None (it may select any pod) where it says more than that."""
    labels = _mapping(raw.get("matchLabels"))
    plain = all(isinstance(value, str) and ":" not in str(key) for key, value in labels.items())
    if not plain or raw.get("matchExpressions"):
        return None
    return LabelSelector(match_labels=tuple(sorted((str(key), str(value)) for key, value in labels.items())))


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
