"""When an agent is sent away because its credential is about to end.

Enters: when the credential ends, and now. Leaves: how long the stream may live. Invariant: the stream ends before the
credential does, and a node that has been handed its next token by then (a kubelet does that after 80 % of a token's
life) comes back with that one; agents that were started together do not come back together.
"""

import random
from collections.abc import Callable
from datetime import datetime

# https://kubernetes.io/docs/tasks/configure-pod-container/configure-service-account/#serviceaccount-token-volume-projection
EARLIEST_SECONDS, LATEST_SECONDS = 90.0, 30.0


def stream_seconds(expires_at: datetime, now: datetime, *, draw: Callable[[], float] = random.random) -> float:
    """From now until the agent is sent away: 90 to 30 s before the end, or after half of what is left, if later."""
    left = max(0.0, (expires_at - now).total_seconds())
    early = LATEST_SECONDS + draw() * (EARLIEST_SECONDS - LATEST_SECONDS)
    return max(left - early, left / 2)
