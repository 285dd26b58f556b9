"""`wattle doctor`: what keeps Wattle from its work, and what to do about it.

Run it where the aggregator runs: `kubectl exec deploy/wattle-aggregator -- wattle doctor`. Exit code 1 when something
does not work. A node's kernel is looked at by the agent's own `--doctor`.
"""

import typer

from aggregator.config import settings_from_environment
from aggregator.doctor import State, examine, lines


def register(app: typer.Typer) -> None:
    app.command("doctor")(_doctor)


def _doctor() -> None:
    """Look at everything that can keep the aggregator from its work, and say what to do. Reads its settings."""
    worst = False
    for found in examine(settings_from_environment()):
        print("\n".join(lines([found])), flush=True)
        worst |= found.state is State.ILL
    print("\nFor a node: kubectl exec -n NAMESPACE POD_OF_THE_AGENT -- /opt/venv/bin/python -m agent --doctor")
    if worst:
        raise typer.Exit(1)
