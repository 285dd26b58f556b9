"""What a scenario's options ask for, as Settings.

Enters: a Scenario. Leaves: Settings.
"""

from aggregator.cluster.scenario import Scenario
from aggregator.model.protocol import Direction
from aggregator.model.settings import Settings

_DIRECTIONS = {
    "ingress+egress": frozenset(Direction),
    "ingress": frozenset({Direction.INGRESS}),
    "egress": frozenset({Direction.EGRESS}),
}


def settings_of(scenario: Scenario, *, include_external: bool = False) -> Settings:
    """What the page's options ask for.

    A page that names a mode closes its directions also where nothing was seen. One that names none shows all the
    traffic there is, so a workload that nobody calls on it is closed to callers; egress stays open where none was seen.
    """
    directions = _DIRECTIONS[scenario.mode]
    named = "mode" in scenario.page.options.model_fields_set
    return Settings(
        namespaces=None if scenario.scope is None else frozenset(scenario.scope),
        directions=directions,
        close_unseen=directions if named else directions & {Direction.INGRESS},
        include_external=include_external,
    )
