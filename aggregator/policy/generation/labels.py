"""Which labels a selector may use: those that survive a rollout, an upgrade and the next Job.

Enters: a key, a value, and what a person listed. Leaves: a class. Invariant: GENERATED labels never reach a selector
(NP-46); VOLATILE ones only when the owner's own selector needs them (NP-47).
"""

import re
from collections.abc import Mapping
from enum import Enum
from functools import lru_cache

from aggregator.model.decision import LabelLists


class LabelClass(Enum):
    STABLE = "stable"
    VOLATILE = "volatile"  # changes with an upgrade
    GENERATED = "generated"  # made by a controller for one generation, one pod or one place


_GENERATED_KEYS = frozenset(
    {
        "pod-template-hash",
        "rollouts-pod-template-hash",
        "controller-revision-hash",
        "pod-template-generation",
        "statefulset.kubernetes.io/pod-name",
        "apps.kubernetes.io/pod-index",
        "job-name",
        "controller-uid",
        "batch.kubernetes.io/job-name",
        "batch.kubernetes.io/controller-uid",
        "batch.kubernetes.io/job-completion-index",
        "batch.kubernetes.io/cronjob-scheduled-timestamp",
        "jobset.sigs.k8s.io/job-key",
        "jobset.sigs.k8s.io/restart-attempt",
        "security.istio.io/tlsMode",
        "service.istio.io/canonical-revision",
        "kubernetes.io/hostname",
        "beta.kubernetes.io/instance-type",
        "node.kubernetes.io/instance-type",
    }
)
_GENERATED_PREFIXES = (
    "pod-template-",
    "topology.kubernetes.io/",
    "failure-domain.beta.kubernetes.io/",
    "linkerd.io/",
)
_GENERATED_PATTERNS = (
    re.compile(r"jobset\.sigs\.k8s\.io/.*-index"),
    re.compile(r"leaderworkerset\.sigs\.k8s\.io/.*-(index|hash)"),
)
_VERSION_KEYS = frozenset({"version", "app.kubernetes.io/version"})
_VOLATILE_KEYS = _VERSION_KEYS | {
    "chart",
    "heritage",
    "release-revision",
    "helm.sh/chart",
    "helm.sh/revision",
    "app.kubernetes.io/managed-by",
}
_VOLATILE_PREFIXES = (
    "argocd.argoproj.io/",
    "kustomize.toolkit.fluxcd.io/",
    "helm.toolkit.fluxcd.io/",
    "checksum/",
)
_VOLATILE_VALUES = (
    re.compile(r"(?=.*\d)[0-9a-f]{7,}"),  # a commit or a digest
    re.compile(r"v?\d+\.\d+(\.\d+)?([-+_.].*)?"),  # a version
    re.compile(r".*-v?\d+\.\d+\.\d+([-+_.].*)?"),  # a chart with its version
    re.compile(r"\d{4}-\d{2}-\d{2}.*|\d{8}(T|t|-)?\d{4,6}.*"),  # a date or a time
    re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"),  # a UUID
)
# What people call their workloads by, best first: ties between equally small selectors go to these.
PREFERRED_KEYS = (
    "app.kubernetes.io/name",
    "app.kubernetes.io/instance",
    "app.kubernetes.io/component",
    "app",
    "k8s-app",
    "name",
    "component",
    "tier",
    "role",
)
_PREFERENCE = {key: rank for rank, key in enumerate(PREFERRED_KEYS)}


@lru_cache(maxsize=1 << 14)
def classify_key(key: str) -> LabelClass:
    """The class of a label by its key alone."""
    if (
        key in _GENERATED_KEYS
        or key.startswith(_GENERATED_PREFIXES)
        or any(pattern.fullmatch(key) for pattern in _GENERATED_PATTERNS)
    ):
        return LabelClass.GENERATED
    if key in _VOLATILE_KEYS or key.startswith(_VOLATILE_PREFIXES):
        return LabelClass.VOLATILE
    return LabelClass.STABLE


@lru_cache(maxsize=1 << 16)
def classify(key: str, value: str) -> LabelClass:
    """The class of a label by its key and the shape of its value."""
    by_key = classify_key(key)
    if by_key is LabelClass.STABLE and any(pattern.fullmatch(value) for pattern in _VOLATILE_VALUES):
        return LabelClass.VOLATILE
    return by_key


def is_version_key(key: str) -> bool:
    """A canary split may need these, and nothing else of NP-47."""
    return key in _VERSION_KEYS


def stable(labels: Mapping[str, str], lists: LabelLists) -> dict[str, str]:
    """The labels that a selector may use."""
    return {
        key: value for key, value in labels.items() if classify(key, value) is LabelClass.STABLE and lists.permits(key)
    }


def preference(key: str) -> tuple[int, int, str]:
    """Sort key: well-known names first, then short keys, then the alphabet."""
    return (_PREFERENCE.get(key, len(PREFERRED_KEYS)), len(key), key)
