"""Certificate: the proof that travels with a proposal.

Leaves policy.certify. It was found by evaluating the rendered YAML, parsed back, never the object in memory.
"""

from dataclasses import dataclass
from enum import StrEnum

from aggregator.model.link import Link
from aggregator.model.protocol import Protocol
from aggregator.model.verdict import Verdict
from aggregator.model.workload import LinkEnd


class Setting(StrEnum):
    """What the proposals were judged with."""

    ALONE = "alone"
    TOGETHER = "together"  # with the applied policies that will remain


@dataclass(frozen=True, slots=True, kw_only=True)
class Breach:
    """A link whose verdict is not the promised one, for at least one pair of pods."""

    setting: Setting
    link: Link
    expected: Verdict
    found: Verdict
    example: str  # "app/web-1 -> app/db-0": the first pair that shows it
    because: str  # the explanation in words


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedPair:
    """A live pair that a proposal's rule opens although it is no included link; ports first to last, both included."""

    src: LinkEnd
    dst: LinkEnd
    protocol: Protocol
    first_port: int
    last_port: int
    because: str = ""  # "dns", "general-rule", "port-range", ...; "" = nobody asked for it


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What was checked and what was found. `holds` is computed, never claimed."""

    profile: str
    digest: str  # SHA-256 of the rendered YAML that was checked
    included: int  # links found allowed at both ends
    denied: int  # links found denied
    undecided: tuple[Breach, ...] = ()  # verdict unknown: no pod, node or address to judge, with the cause
    breaches: tuple[Breach, ...] = ()
    opened: tuple[OpenedPair, ...] = ()
    evaluators: tuple[str, ...] = ()
    connections: int = 0  # judged by each evaluator
    disagreements: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        return not self.breaches and not self.disagreements and bool(self.evaluators)
