"""What the rest of the program follows: what agents saw and a person decided, as the store has it now.

Enters: the store and the decision log. Leaves: the cluster's ranges for the view, and the process names for agents.
Invariant: while the database is away, what was last told still holds.
"""

import logging

from aggregator.cluster.discover import SeenArgument, Told
from aggregator.errors import StoreError
from aggregator.model.cidrs import CidrRole
from aggregator.store import Store
from aggregator.store.decisions import DecisionLog

log = logging.getLogger(__name__)


class Following:
    """One cluster's. Blocking: asked from threads."""

    def __init__(self, store: Store, decisions: DecisionLog, cluster: str) -> None:
        self._store = store
        self._decisions = decisions
        self._cluster = cluster
        self._told = Told()
        self._process_names: tuple[str, ...] = ()

    def told(self) -> Told:
        """CIDRs in the arguments of control-plane processes, and those that a person set."""
        try:
            self._told = self._read()
        except StoreError as error:
            log.warning("the cluster's ranges stay as they are: %s", error)
        return self._told

    def process_names(self) -> tuple[str, ...]:
        """Processes whose arguments agents search for CIDRs; () leaves what each was started with."""
        try:
            self._process_names = tuple(self._decisions.state(self._cluster).decisions.process_names)
        except StoreError as error:
            log.warning("the agents' settings stay as they are: %s", error)
        return self._process_names

    def _read(self) -> Told:
        held = self._decisions.state(self._cluster).decisions.cluster_cidrs
        by_hand = (
            [
                *((CidrRole.POD, str(cidr)) for cidr in held.pod_cidrs),
                *((CidrRole.SERVICE, str(cidr)) for cidr in held.service_cidrs),
                *((CidrRole.NODE, str(cidr)) for cidr in held.node_cidrs),
            ]
            if held
            else []
        )
        seen = [
            SeenArgument(node="", process=hint.process, flag=hint.flag, value=hint.value)
            for hint in self._store.cidr_hints(self._cluster)
        ]
        return Told(seen=seen, by_hand=by_hand)
