"""Names of policies: stable, valid, and one policy each.

Enters: the workloads that the cluster knows. Leaves: a name per workload. Invariant: names depend on which workloads
exist, never on which links were seen or in what order; two workloads of a namespace never share one (C29).
"""

import hashlib
from collections.abc import Iterable

from aggregator.model.protocol import Direction
from aggregator.model.workload import Workload

MAX_NAME = 253  # NP-52: a DNS-1123 subdomain
_HASH_CHARACTERS = 10


class Names:
    def __init__(self, workloads: Iterable[Workload], prefix: str) -> None:
        self._prefix = prefix
        counts: dict[tuple[str, str], set[str]] = {}
        for workload in workloads:
            counts.setdefault((workload.namespace, workload.name), set()).add(workload.kind)
        self._shared = frozenset(key for key, kinds in counts.items() if len(kinds) > 1)

    def of(self, workload: Workload) -> str:
        """The workload's own name, with its kind where another kind has the same."""
        if (workload.namespace, workload.name) in self._shared:
            return self._fit(f"{workload.name}-{workload.kind.lower()}")
        return self._fit(workload.name)

    def default_deny(self, direction: Direction) -> str:
        return self._fit(f"default-deny-{direction.value.lower()}")

    def _fit(self, name: str) -> str:
        whole = f"{self._prefix}{name}"
        if len(whole) <= MAX_NAME - 5:  # room for "-9999" of a split
            return whole
        digest = hashlib.sha256(whole.encode()).hexdigest()[:_HASH_CHARACTERS]
        return f"{whole[: MAX_NAME - 5 - _HASH_CHARACTERS - 1].rstrip('-.')}-{digest}"
