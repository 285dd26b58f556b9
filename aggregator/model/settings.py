"""Settings: how proposals are to be made. Values of an installation or of one question, never of a link."""

from dataclasses import dataclass

from aggregator.model.protocol import Direction
from aggregator.model.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The defaults are those of an installation that nobody has configured."""

    namespaces: frozenset[str] | None = None  # make proposals for these alone; None = for all
    workloads: frozenset[Workload] | None = None  # likewise
    directions: frozenset[Direction] = frozenset(Direction)
    close_unseen: frozenset[Direction] = frozenset()  # isolate these even where nothing was seen in them
    include_external: bool = False  # a person has said yes to every outside address seen
    synthesise_dns: bool = True
    compact: bool = False  # overlapping rules where they save at least 15 % of the lines
    cidr_budget: int | None = None  # at most this many prefixes a rule, widened where a person accepted it
    annotate_evidence: bool = False
    profile: str = "generic"
    name_prefix: str = "wattle-"
    max_peers: int = 500
    max_bytes: int = 256 * 1024  # kubectl's last-applied annotation takes no more

    def covers(self, workload: Workload) -> bool:
        """Is a proposal for this workload asked for?"""
        if self.namespaces is not None and workload.namespace not in self.namespaces:
            return False
        return self.workloads is None or workload in self.workloads
