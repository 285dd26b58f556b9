"""Agents and status: does it work, how old is the data, what was lost."""

from aggregator.services.authority.caller import Caller, Resource, Verb
from aggregator.services.question import LinkStore, View
from aggregator.services.views import AgentView, CallerView, StatusView
from aggregator.services.wording import finding_views
from aggregator.store.agents import AgentStatus

# What an agent leaves out on purpose is no loss.
NOT_LOST = frozenset({"not_a_pod", "mesh_loopback"})


def caller_view(caller: Caller, cluster: str, namespace: str) -> CallerView:
    return CallerView(
        name=caller.name,
        cluster=cluster,
        development=caller.development,
        namespace=namespace,
        rights=_rights(caller, ""),
        rights_in_namespace=_rights(caller, namespace) if namespace else [],
    )


def _rights(caller: Caller, namespace: str) -> list[str]:
    return [f"{verb} {resource}" for resource in Resource for verb in Verb if caller.may(verb, resource, namespace)]


def agent_views(store: LinkStore, cluster: str) -> list[AgentView]:
    return [_agent(agent) for agent in store.agents(cluster)]


def status_view(caller: Caller, store: LinkStore, view: View) -> StatusView:
    agents = store.agents(view.cluster)
    lost: dict[str, int] = {}
    for agent in agents:
        for reason, count in agent.losses.items():
            if reason not in NOT_LOST:
                lost[reason] = lost.get(reason, 0) + count
    return StatusView(
        cluster=view.cluster,
        development=caller.development,
        agents=len(agents),
        last_batch=max((a.last_batch for a in agents if a.last_batch is not None), default=None),
        recording_since=store.recording_since(view.cluster),
        flow_records=sum(agent.flow_records for agent in agents),
        lost=lost,
        gap_batches=sum(agent.gap_batches for agent in agents),
        pending_flows=store.pending_count(view.cluster),
        view_age_seconds=view.age_seconds,
        view_stale=view.stale,
        findings=finding_views(view.findings),
    )


def _agent(agent: AgentStatus) -> AgentView:
    return AgentView(
        name=agent.agent_id,
        version=agent.version,
        kernel=agent.kernel,
        backend=agent.backend,
        refused=list(agent.refused),
        last_report=agent.last_report,
        last_batch=agent.last_batch,
        map_fill_permille=agent.map_fill_permille,
        spool_bytes=agent.spool_bytes,
        spool_batches=agent.spool_batches,
        clock_skew_ms=agent.clock_skew_ms,
        flow_records=agent.flow_records,
        clamped_batches=agent.clamped_batches,
        rejected_batches=agent.rejected_batches,
        losses=dict(agent.losses),
        gap_batches=agent.gap_batches,
        gap_flow_records=agent.gap_flow_records,
    )
