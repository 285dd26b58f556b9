"""The second opinion: the compiled evaluator, asked about the same connections as the plain one.

Enters: policies, a snapshot, connections. Leaves: a Verdict for each. Invariant: nothing of the plain one is used.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from aggregator.model.adminpolicy import Policy
from aggregator.model.cluster import ClusterSnapshot, Pod
from aggregator.model.endpoint import Connection, Endpoint, PodEndpoint
from aggregator.model.verdict import Verdict
from aggregator.policy.compiled import VERDICTS, compile_policies
from aggregator.policy.profiles.profile import Profile


def compiled_verdicts(
    policies: Sequence[Policy], cluster: ClusterSnapshot, profile: Profile, connections: Sequence[Connection]
) -> list[Verdict]:
    """Verdicts in the order of the connections. Only the pods that are asked about are compiled in."""
    if not connections:
        return []
    pods: dict[int, Pod] = {}
    others: dict[int, Endpoint] = {}
    for connection in connections:
        for end in (connection.src, connection.dst):
            if isinstance(end, PodEndpoint):
                pods[id(end.pod)] = end.pod
            else:
                others[id(end)] = end
    small = replace(cluster, pods=tuple(pods.values()))
    compiled = compile_policies(policies, small, profile, others=others.values())
    numbers: dict[int, int] = {}

    def number(end: Endpoint) -> int:
        found = numbers.get(id(end))
        if found is None:
            found = numbers[id(end)] = compiled.number(end)
        return found

    src = np.array([number(connection.src) for connection in connections])
    dst = np.array([number(connection.dst) for connection in connections])
    protocol = np.array([connection.protocol.number for connection in connections])
    port = np.array([connection.port for connection in connections])
    return [VERDICTS[code] for code in compiled.verdicts(src, dst, protocol, port).tolist()]
