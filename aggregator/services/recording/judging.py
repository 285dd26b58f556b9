"""Judging: the moment at which a flow's ends are asked for.

Enters: an identity, when its connections were opened and when they were seen. Leaves: a Resolution.
Invariant: a connection is of whoever had the addresses when it was opened. Afterwards they may be somebody else's: a
pod that takes over the address of one that went without a word is sent the last packets of its connections.
"""

from datetime import datetime, timedelta
from typing import assert_never

from aggregator.model.link import Link, Outcome
from aggregator.model.resolution import (
    SERVICE_BACKENDS_DIFFER,
    FlowIdentity,
    NotYet,
    Refused,
    Resolution,
    Resolved,
    Resolver,
)

OPEN_ACROSS_OWNERS = Refused(reason="open-across-owners")
_MOST_CHANGES = 64  # that are looked back at: of what stood behind a Service, for one
_BEFORE = timedelta(milliseconds=1)


def judge(resolver: Resolver, identity: FlowIdentity, *, opened: datetime, seen: datetime) -> Resolution:
    """What `resolver` says of the time `opened`.

    An OPEN connection was opened at some time from `opened`, when its pod was started, until it was `seen`; its other
    end must have been the same all that time, or it says nothing. Of two pods one can always say so, the younger. Of a
    Service it is enough that nobody else was behind it: while nobody was, nothing was opened.
    """
    if identity.outcome is not Outcome.OPEN:
        return resolver.resolve(identity, opened)
    found = answer = resolver.resolve(identity, seen)
    if opened == seen or not isinstance(found, Resolved):
        return found
    for _ in range(_MOST_CHANGES):
        if isinstance(answer, Refused) or _may_be_another(answer, found.link, by_service=bool(found.service)):
            return OPEN_ACROSS_OWNERS
        if answer.holds_since is None or answer.holds_since < opened:
            return found
        answer = resolver.resolve(identity, answer.holds_since - _BEFORE)
    return found if found.service else OPEN_ACROSS_OWNERS


def _may_be_another(answer: Resolved | NotYet, link: Link, *, by_service: bool) -> bool:
    match answer:
        case Resolved():
            return answer.link != link
        case NotYet():
            return not by_service or answer.reason == SERVICE_BACKENDS_DIFFER
        case _:
            assert_never(answer)
