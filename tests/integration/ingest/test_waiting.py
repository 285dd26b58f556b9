"""Flows that wait for the cluster view: what they become, and how long they wait."""

import time
from dataclasses import replace
from datetime import datetime

import pytest

from agent.spool import Spool
from aggregator.metrics import PENDING, PENDING_SETTLED
from aggregator.model.link import Link
from aggregator.model.resolution import FlowIdentity, NotYet, Resolution, Resolved
from aggregator.model.workload import Address
from aggregator.services.recording.settling import BEHIND_MS, Settler
from aggregator.store import Scope, Store
from aggregator.store.deltas import CursorKey
from aggregator.store.keys import moment
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
from wattle.v1 import flowlink_pb2


def not_yet(flow: FlowIdentity, reason: str, *, behind: bool = False) -> NotYet:
    """Nobody knows the peer: its raw address is what there is."""
    raw = Address(cluster=CLUSTER, ip=flow.remote_ip)
    link = Link(src=workload("uid-client"), dst=raw, protocol=flow.protocol, port=flow.port)
    return NotYet(reason=reason, fallback=link, behind=behind)


def settled_flows(outcome: str, reason: str) -> float:
    return float(PENDING_SETTLED.labels(outcome, reason)._value.get())


async def deliver(store: Store, spool: Spool, resolver: FakeResolver, records: list[Flow]) -> None:
    """One batch, from the spool into the store."""
    async with running_aggregator(store, resolver=resolver) as aggregator, running_stream(spool, aggregator.port):
        spool.append(batch_of(records))
        await empty(spool)


async def test_a_flow_that_waits_moves_to_its_link_or_to_its_raw_address(store: Store, spool: Spool) -> None:
    known = {"value": False}

    def answer(flow: FlowIdentity, _at: datetime) -> Resolution | None:
        if known["value"] and flow.port != 1_001:
            return None
        answer = not_yet(flow, "pod")
        return answer if flow.port != 1_002 else replace(answer, fallback=None)

    resolver = FakeResolver(answer=answer, addresses={"10.0.0.2": "server"})
    await deliver(store, spool, resolver, flows(3))
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
    await deliver(sqlite_store, spool, resolver, flows(2))
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
    await deliver(sqlite_store, spool, resolver, flows(1))
    [flow] = sqlite_store.pending_flows(limit=10)
    clock = {"ms": flow.deadline_ms + BEHIND_MS - 1}
    settler = Settler(store=sqlite_store, resolver=resolver, now_ms=lambda: clock["ms"])
    assert settler.settle() == 0
    clock["ms"] += 1
    assert settler.settle() == 1


@pytest.mark.parametrize("reason", ["address-changed-hands", "service-without-backends"])
async def test_the_rest_of_a_connection_whose_peer_nobody_knows_any_more_is_no_new_link(
    sqlite_store: Store, spool: Spool, reason: str
) -> None:
    """Its pod was deleted and its address given away: the link was told of when the connection was opened."""
    resolver = FakeResolver(answer=lambda flow, _at: not_yet(flow, reason))
    before = {outcome: settled_flows(outcome, reason) for outcome in ("remainder-of-unknown", "raw-address")}
    found_open = Flow(port=8080, count=0, outcome=flowlink_pb2.OUTCOME_OPEN)
    await deliver(sqlite_store, spool, resolver, [Flow(port=6379, count=0), found_open, Flow(port=5432, count=1)])
    assert Settler(store=sqlite_store, resolver=resolver, now_ms=lambda: 1 << 45).settle() == 3
    assert {observed.link.port for observed in sqlite_store.links(Scope(cluster=CLUSTER))} == {5432}
    assert sqlite_store.pending_count(CLUSTER) == 0
    assert {outcome: settled_flows(outcome, reason) - number for outcome, number in before.items()} == {
        "remainder-of-unknown": 2,
        "raw-address": 1,
    }


async def test_an_open_connection_to_an_address_that_was_never_a_pod_s_is_a_link(
    sqlite_store: Store, spool: Spool
) -> None:
    """It was opened before the agents came, and nothing else tells of it."""
    resolver = FakeResolver(answer=lambda flow, _at: not_yet(flow, "cluster-subnets-incomplete"))
    found_open = Flow(port=5432, count=0, longest_ms=60_000, outcome=flowlink_pb2.OUTCOME_OPEN)
    await deliver(sqlite_store, spool, resolver, [found_open])
    assert Settler(store=sqlite_store, resolver=resolver, now_ms=lambda: 1 << 45).settle() == 1
    assert {observed.link.port for observed in sqlite_store.links(Scope(cluster=CLUSTER))} == {5432}


async def test_what_waits_is_judged_by_when_it_was_opened(sqlite_store: Store, spool: Spool) -> None:
    """Of an open connection that is not told: its peer must have been the same for as long as it can be open."""
    known, change_ms = {"value": False}, time.time_ns() // 1_000_000 - 60_000

    def answer(flow: FlowIdentity, at: datetime) -> Resolution | None:
        if not known["value"]:
            return not_yet(flow, "pod")
        new = at.timestamp() * 1000 >= change_ms
        link = Link(
            src=workload("uid-client"), dst=workload("new" if new else "old"), protocol=flow.protocol, port=flow.port
        )
        return Resolved(link=link, holds_since=moment(change_ms - 1) if new else None)

    resolver = FakeResolver(answer=answer)
    closed = Flow(port=1, count=0, longest_ms=120_000)
    young, old = (
        Flow(port=port, count=0, longest_ms=longest_ms, outcome=flowlink_pb2.OUTCOME_OPEN)
        for port, longest_ms in ((2, 10_000), (3, 120_000))
    )
    await deliver(sqlite_store, spool, resolver, [closed, young, old])
    known["value"] = True
    assert Settler(store=sqlite_store, resolver=resolver).settle() == 3
    assert {
        (observed.link.port, str(observed.link.dst)) for observed in sqlite_store.links(Scope(cluster=CLUSTER))
    } == {
        (1, "shop/Deployment/old"),
        (2, "shop/Deployment/new"),
    }
