"""Standing: since when what verdicts rest on is as it is, as far as a view saw it.

Enters: what changed, and when that was seen. Leaves: a time after which nothing changed that could turn the verdict of
a connection between two pods. Invariant: it is never earlier than the truth: after a gap in what was seen, a restart
included, everything counts as changed at its end.
"""

from collections.abc import Iterable

from aggregator.cluster.foreign import EXTRA_KINDS
from aggregator.cluster.reduce import NEVER

DECIDING = frozenset({"NetworkPolicy", "Namespace", "Pod", "Node", *EXTRA_KINDS})
PodName = tuple[str, str]  # (namespace, name)


class Standing:
    """Times are Unix seconds. `generation` grows when verdicts of pods that were there before may have changed."""

    def __init__(self) -> None:
        self.generation = 0
        self._everything = NEVER
        self._policies: dict[str, float] = {}
        self._namespaces: dict[str, float] = {}
        self._pods: dict[PodName, float] = {}

    def changed(self, kind: str, namespace: str, name: str, *, at: float, before: bool = True) -> None:
        """An object changed, came or went. `before`: a pod was there before with other labels, ports or addresses."""
        match kind:
            case "Pod":
                self._pods[(namespace, name)] = at
                self.generation += before
                return
            case "NetworkPolicy":
                self._policies[namespace] = at
            case "Namespace":
                self._namespaces[name] = at
            case _ if kind in DECIDING:
                self._everything = at
            case _:
                return
        self.generation += 1

    def gap(self, kind: str, at: float) -> None:
        """Changes of this kind may have been missed until `at`."""
        if kind in DECIDING:
            self._everything = max(self._everything, at)

    def forget_pod(self, pod: PodName) -> None:
        self._pods.pop(pod, None)

    def since(self, pods: Iterable[PodName]) -> float:
        """For a connection between these pods (one, where the other end is none)."""
        found = self._everything
        for namespace, name in pods:
            found = max(
                found,
                self._policies.get(namespace, NEVER),
                self._namespaces.get(namespace, NEVER),
                self._pods.get((namespace, name), NEVER),
            )
        return found
