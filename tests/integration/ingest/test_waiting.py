"""Flows that wait for the cluster view: what they become, and how long they wait."""

from dataclasses import replace
from datetime import datetime

from agent.spool import Spool
from aggregator.metrics import PENDING
from aggregator.model.link import Link
from aggregator.model.resolution import FlowIdentity, NotYet, Resolution
from aggregator.model.workload import Address
from aggregator.services.recording.settling import BEHIND_MS, Settler
from aggregator.store import Scope, Store
from aggregator.store.deltas import CursorKey
from tests.flowlink import (
    CLUSTER,
    FakeResolver,
    Flow,
    batch_of,
    connections,
    empty,
    flows,
    running_aggregator,
    running_stream,
    workload,
)


def not_yet(flow: FlowIdentity, reason: str, *, behind: bool = False) -> NotYet:
    """Nobody knows the peer: its raw address is what there is."""
    raw = Address(cluster=CLUSTER, ip=flow.remote_ip)
    link = Link(src=workload("uid-client"), dst=raw, protocol=flow.protocol, port=flow.port)
    return NotYet(reason=reason, fallback=link, behind=behind)


async def test_a_flow_that_waits_moves_to_its_link_or_to_its_raw_address(store: Store, spool: Spool) -> None:
    known = {"value": False}

    def answer(flow: FlowIdentity, _at: datetime) -> Resolution | None:
        if known["value"] and flow.port != 1_001:
            return None
        answer = not_yet(flow, "pod")
        return answer if flow.port != 1_002 else replace(answer, fallback=None)

    resolver = FakeResolver(answer=answer, addresses={"10.0.0.2": "server"})
    async with running_aggregator(store, resolver=resolver) as aggregator, running_stream(spool, aggregator.port):
        spool.append(batch_of(flows(3)))
        await empty(spool)
    assert store.pending_count(CLUSTER) == 3
    clock = {"ms": 0}
    settler = Settler(store=store, resolver=resolver, now_ms=lambda: clock["ms"])
    assert settler.settle() == 0
    known["value"] = True
    assert settler.settle() == 2
    assert {str(observed.link.dst) for observed in store.links(Scope(cluster=CLUSTER))} == {"shop/Deployment/server"}
    known["value"] = False
    clock["ms"] = 1 << 45
    assert settler.settle() == 1
    assert settler.settle() == 0
    assert store.pending_count(CLUSTER) == 0
    assert connections(store) == 3
    assert store.committed_seq(CursorKey(cluster=CLUSTER, agent_id="node-1", epoch=spool.epoch)) == 1


async def test_a_flow_waits_as_long_as_the_view_is_behind(sqlite_store: Store, spool: Spool) -> None:
    """While the API server is away nobody can be named; the grace period is for what the view does not know."""
    behind = {"value": True}

    resolver = FakeResolver(answer=lambda flow, _at: not_yet(flow, "view-behind", behind=behind["value"]))
    async with (
        running_aggregator(sqlite_store, resolver=resolver) as aggregator,
        running_stream(spool, aggregator.port),
    ):
        spool.append(batch_of(flows(2)))
        await empty(spool)
    [first, _] = sqlite_store.pending_flows(limit=10)
    clock = {"ms": first.deadline_ms + 1_000}
    settler = Settler(store=sqlite_store, resolver=resolver, now_ms=lambda: clock["ms"])
    assert settler.settle() == 0
    assert PENDING._value.get() == 2
    behind["value"] = False
    assert settler.settle() == 2
    assert PENDING._value.get() == 0


async def test_a_view_that_stays_behind_is_not_waited_for_for_ever(sqlite_store: Store, spool: Spool) -> None:
    resolver = FakeResolver(answer=lambda flow, _at: not_yet(flow, "view-behind", behind=True))
    async with (
        running_aggregator(sqlite_store, resolver=resolver) as aggregator,
        running_stream(spool, aggregator.port),
    ):
        spool.append(batch_of(flows(1)))
        await empty(spool)
    [flow] = sqlite_store.pending_flows(limit=10)
    clock = {"ms": flow.deadline_ms + BEHIND_MS - 1}
    settler = Settler(store=sqlite_store, resolver=resolver, now_ms=lambda: clock["ms"])
    assert settler.settle() == 0
    clock["ms"] += 1
    assert settler.settle() == 1


async def test_the_rest_of_a_connection_whose_peer_nobody_knows_any_more_is_no_new_link(
    sqlite_store: Store, spool: Spool
) -> None:
    """Its pod was deleted and its address given away: the link was told of when the connection was opened."""
    resolver = FakeResolver(answer=lambda flow, _at: not_yet(flow, "address-changed-hands"))
    async with (
        running_aggregator(sqlite_store, resolver=resolver) as aggregator,
        running_stream(spool, aggregator.port),
    ):
        spool.append(batch_of([Flow(port=6379, count=0), Flow(port=5432, count=1)]))
        await empty(spool)
    assert Settler(store=sqlite_store, resolver=resolver, now_ms=lambda: 1 << 45).settle() == 2
    assert {observed.link.port for observed in sqlite_store.links(Scope(cluster=CLUSTER))} == {5432}
    assert sqlite_store.pending_count(CLUSTER) == 0
