"""Agent and aggregator share nothing but the wire; what has to be the same in both is held to that here."""

import inspect

from agent.doctor import finding as agents
from aggregator.doctor import finding as aggregators


def test_both_doctors_speak_alike() -> None:
    for name in ("State", "Finding", "well", "poor", "ill", "lines"):
        assert inspect.getsource(getattr(agents, name)) == inspect.getsource(getattr(aggregators, name)), name
