"""Which nodes are watched, by which version, and do their clocks go with ours?

Enters: what the database knows of agents, the names of the cluster's nodes. Leaves: findings.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from aggregator.doctor.finding import Finding, ill, poor, well
from aggregator.store.agents import AgentStatus

SILENT_AFTER = timedelta(minutes=3)
SKEW_MS = 5_000
FULL_PERMILLE = 800


def check_agents(
    agents: Sequence[AgentStatus], nodes: Sequence[str] | None, *, version: str, now: datetime
) -> Iterator[Finding]:
    """`nodes` None: they could not be read."""
    if not agents:
        yield ill(
            "agents",
            "none has ever delivered",
            "look at the DaemonSet's pods; `python -m agent --doctor` in one of them says what keeps it",
        )
        return
    silent = sorted(a.agent_id for a in agents if a.last_report is None or now - a.last_report > SILENT_AFTER)
    known = {agent.agent_id for agent in agents}
    if nodes is not None:
        silent = [name for name in silent if name in nodes]  # a node that is gone owes no report
        if missing := sorted(set(nodes) - known):
            yield poor(
                "agents",
                f"no agent has ever delivered from {_named(missing)}",
                "does a nodeSelector or a taint leave them out? Their pods are seen from the other end alone",
            )
    if silent:
        yield poor("agents", f"nothing for three minutes from {_named(silent)}", "look at these nodes' agent pods")
    skewed = sorted(a.agent_id for a in agents if abs(a.clock_skew_ms) > SKEW_MS and a.agent_id not in silent)
    if skewed:
        yield poor("clocks", f"more than 5 s from this one's: {_named(skewed)}", "run chrony on these nodes")
    full = sorted(a.agent_id for a in agents if a.map_fill_permille > FULL_PERMILLE and a.agent_id not in silent)
    if full:
        yield poor("flow maps", f"more than 80 % full: {_named(full)}", "raise agent.settings.flow_entries")
    others = sorted({a.version for a in agents if a.agent_id not in silent} - {version})
    if others:
        yield poor(
            "versions",
            f"agents of {', '.join(others)} deliver to an aggregator of {version}",
            "one version apart works; let the DaemonSet's rollout end",
        )
    if not silent and len(agents) > 0:
        yield well("agents", f"{len(agents) if nodes is None else len(known & set(nodes))} deliver")


def _named(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
