"""Verdict: may a connection be opened, and why. The explanation is the verdict's substance, not a comment on it."""

from dataclasses import dataclass
from enum import Enum, StrEnum

from aggregator.model.protocol import Direction


class Verdict(Enum):
    ALLOWED = "allowed"
    DENIED = "denied"
    UNKNOWN = "unknown"


class DirectionOutcome(StrEnum):
    """What one side's policies say."""

    DEFAULT_ALLOW = "default-allow"  # no policy of this direction selects the pod
    ALLOWED = "allowed"
    DENIED = "denied"
    NOT_A_POD = "not-a-pod"  # this side is no pod that policies act on: it always allows
    NODE_OWN_POD = "node-own-pod"  # a pod and its own node (NP-30)
    SELF = "self"  # a pod and itself (NP-31)
    UNKNOWN = "unknown"


class PolicyReason(StrEnum):
    """Why one selecting policy did or did not allow the connection."""

    ALLOWED = "allowed"
    NO_RULES = "no-rules"
    PEER_NOT_MATCHED = "peer-not-matched"
    PORT_NOT_MATCHED = "port-not-matched"
    DENIED = "denied"  # an explicit deny of an admin or plug-in policy
    PASSED = "passed"  # an explicit pass of an admin policy
    UNKNOWN = "unknown"  # a rule may match; the direction says what would have to be known


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyFinding:
    """One selecting policy's say: the rules (1-based) that allowed it, or whose peer matched but port did not."""

    policy: str  # "namespace/name", or "Kind/name" for a cluster-wide one
    reason: PolicyReason
    rules: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectionExplanation:
    direction: Direction
    outcome: DirectionOutcome
    policies: tuple[PolicyFinding, ...] = ()
    cause: str = ""  # for UNKNOWN: what would have to be known

    @property
    def verdict(self) -> Verdict:
        match self.outcome:
            case DirectionOutcome.DENIED:
                return Verdict.DENIED
            case DirectionOutcome.UNKNOWN:
                return Verdict.UNKNOWN
            case _:
                return Verdict.ALLOWED


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Both sides; denied when either denies, unknown when neither denies and either is unknown (NP-05, NP-64)."""

    egress: DirectionExplanation
    ingress: DirectionExplanation

    @property
    def verdict(self) -> Verdict:
        verdicts = (self.egress.verdict, self.ingress.verdict)
        if Verdict.DENIED in verdicts:
            return Verdict.DENIED
        return Verdict.UNKNOWN if Verdict.UNKNOWN in verdicts else Verdict.ALLOWED
