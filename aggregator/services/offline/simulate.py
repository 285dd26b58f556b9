"""What proposals, or policies from other files, would do to the flows of a page, and in which order to apply them.

Enters: an Offline, a certified Generation or policies. Leaves: a Simulation and a Plan. The time of the question is the
page's last sighting, so that the answer does not depend on the day.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from aggregator.model.networkpolicy import NetworkPolicy
from aggregator.model.simulation import Bucket, Candidate, Plan, Simulation
from aggregator.policy.order import plan
from aggregator.policy.profiles.profile import Profile
from aggregator.policy.simulate import simulate
from aggregator.services.offline.load import Offline
from aggregator.services.offline.propose import Choices, propose

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """`plan` is empty when the policies came from files."""

    scenario: str
    simulation: Simulation
    plan: Plan

    @property
    def cuts(self) -> bool:
        """Would anything that was seen, or DNS, stop working?"""
        return bool(self.simulation.of(Candidate.APPLIED_AND_PROPOSED, Bucket.WOULD_BE_CUT))


def rehearse(
    offline: Offline, choices: Choices, profile: Profile, policies: Sequence[NetworkPolicy] | None = None
) -> Rehearsal:
    """Of the page's own proposals, or of `policies`."""
    steps = Plan(steps=())
    if policies is None:
        generation = propose(offline, choices, profile)
        steps = plan(generation, offline.cluster)
        policies = generation.policies
    history = [observed for observed in offline.links if observed.established]
    now = max((o.evidence.last_seen for o in history if o.evidence.last_seen is not None), default=_EPOCH)
    simulation = simulate(history, policies, offline.cluster, now=now, profile=profile)
    return Rehearsal(scenario=offline.name, simulation=simulation, plan=steps)
