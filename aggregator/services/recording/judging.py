"""Judging: the moment at which a flow's ends are asked for.

Enters: an identity, when its connections were opened and when they were seen. Leaves: a Resolution.
Invariant: a connection is of whoever had the addresses when it was opened. Afterwards they may be somebody else's: a
pod that takes over the address of one that went without a word is sent the last packets of its connections.
"""

from datetime import datetime, timedelta

from aggregator.model.link import Outcome
from aggregator.model.resolution import FlowIdentity, Refused, Resolution, Resolved, Resolver

OPEN_ACROSS_OWNERS = Refused(reason="open-across-owners")
_MOST_CHANGES = 64  # of what stood behind a Service, for one
_BEFORE = timedelta(milliseconds=1)


def judge(resolver: Resolver, identity: FlowIdentity, *, opened: datetime, seen: datetime) -> Resolution:
    """What `resolver` says of the time `opened`.

    An OPEN connection was opened at some time from `opened` on: it must have had the same ends from then until it was
    `seen`, or it says nothing. One of its two sides can say so, since it is younger than either of its pods.
    """
    if identity.outcome is not Outcome.OPEN:
        return resolver.resolve(identity, opened)
    found = answer = resolver.resolve(identity, seen)
    if not isinstance(found, Resolved):
        return found
    for _ in range(_MOST_CHANGES):
        if not isinstance(answer, Resolved) or answer.link != found.link:
            break
        if answer.holds_since is None or answer.holds_since < opened or opened == seen:
            return found
        answer = resolver.resolve(identity, answer.holds_since - _BEFORE)
    return OPEN_ACROSS_OWNERS
