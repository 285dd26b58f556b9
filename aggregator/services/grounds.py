"""Grounds: what every answer about a cluster rests on, and where it was learned.

Enters: the cluster's ranges, the profile, the retention. Leaves: GroundsView. Invariant: a range that counts no longer,
because a person set others for its role, is still listed, and says so.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from aggregator.model.cidrs import CidrRole, ClusterCidrs
from aggregator.policy.profiles.profile import Profile
from aggregator.store.retention import Retention

RoleWord = Literal["pod", "service", "node"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnedCidrView:
    """A range of the cluster and where it was found. `counts` False: others were set by hand for its role."""

    role: RoleWord
    cidr: str
    found_in: str
    by_hand: bool
    counts: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptView:
    """How long something is kept."""

    what: str
    days: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GroundsView:
    cidrs: list[LearnedCidrView]
    missing: list[RoleWord]  # without these nothing can be called external
    node_addresses: int
    profile: str
    profile_title: str
    profile_standing: str
    profile_notes: list[str]
    kept: list[KeptView]


def grounds_view(cidrs: ClusterCidrs, profile: Profile, retention: Retention) -> GroundsView:
    counted = {(role, cidr) for role in CidrRole for cidr in cidrs.of(role)}
    by_hand = {source.role for source in cidrs.sources if source.by_hand}
    return GroundsView(
        cidrs=[
            LearnedCidrView(
                role=source.role.value,
                cidr=str(source.cidr),
                found_in=source.found_in,
                by_hand=source.by_hand,
                counts=(source.role, source.cidr) in counted and (source.by_hand or source.role not in by_hand),
            )
            for role in CidrRole
            for source in cidrs.sources
            if source.role is role
        ],
        missing=[role.value for role in cidrs.missing],
        node_addresses=len(cidrs.node_addresses),
        profile=profile.name,
        profile_title=profile.title,
        profile_standing=profile.standing.value,
        profile_notes=list(profile.notes),
        kept=[
            _kept("Activity in steps of 5 minutes", retention.fine),
            _kept("Activity in steps of 1 hour", retention.coarse),
            _kept("Evidence: processes, pods and Services of a link", retention.evidence),
        ],
    )


def _kept(what: str, how_long: timedelta) -> KeptView:
    return KeptView(what=what, days=how_long.days)
