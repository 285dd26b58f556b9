"""Proposals from files: generate, certify, and what they would do to the traffic that was seen.

Enters: an Offline and what a person chose. Leaves: a certified Generation.
"""

from dataclasses import dataclass, replace

from aggregator.model.decision import Decisions, DefaultDeny
from aggregator.model.proposal import Generation
from aggregator.model.protocol import Direction
from aggregator.policy.certify import certify
from aggregator.policy.generation.generate import generate
from aggregator.policy.profiles.profile import Profile
from aggregator.services.offline.load import Offline


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What a person says on the command line, beside what the page says itself."""

    include_external: bool = False
    namespaces: frozenset[str] = frozenset()  # empty = those of the page
    close_unseen: frozenset[Direction] | None = None  # None = as the page says
    default_denies: tuple[tuple[str, Direction], ...] = ()
    compact: bool = False
    annotate_evidence: bool = False


def propose(offline: Offline, choices: Choices, profile: Profile) -> Generation:
    """The certified proposals for one page."""
    settings = replace(
        offline.settings,
        include_external=choices.include_external,
        namespaces=choices.namespaces or offline.settings.namespaces,
        close_unseen=offline.settings.close_unseen if choices.close_unseen is None else choices.close_unseen,
        compact=choices.compact,
        annotate_evidence=choices.annotate_evidence,
        profile=profile.name,
    )
    decisions = Decisions.of(DefaultDeny(namespace=n, direction=d) for n, d in choices.default_denies)
    generation = generate(offline.links, decisions, offline.cluster, settings)
    return certify(generation, offline.cluster, decisions=decisions, profile=profile)
