"""What holds is told cluster by cluster: each has a keeper of its own, and all share one page of numbers."""

import asyncio
import time
from datetime import datetime, timedelta
from pathlib import Path

from prometheus_client import REGISTRY

from aggregator.model.cluster import ClusterSnapshot
from aggregator.policy.profiles.known import GENERIC
from aggregator.services.keeping.keeper import Keeper
from aggregator.services.keeping.shadowing import Shadowing
from aggregator.store.events import EventLog
from aggregator.store.migrate import migrate
from aggregator.store.store import Store, open_store
from aggregator.store.watches import PolicyWatch, PolicyWatches
from tests.integration.services.world import DB, NOW, WEB, link, new_link_event

BUSY, CALM = "busy", "calm"


def keeper(store: Store, cluster: str) -> Keeper:
    events = EventLog(store.engine)
    shadowing = Shadowing(
        store,
        events,
        cluster,
        snapshot=lambda: ClusterSnapshot(name=cluster),
        profile=lambda: GENERIC,
        read=lambda _yaml: (),
    )
    return Keeper(store=store, events=events, cluster=cluster, leading={"shadow": shadowing.step}, clock=lambda: NOW)


def number(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


def test_a_cluster_in_which_nothing_holds_says_nothing_of_another(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'wattle.db'}"
    migrate(url)
    store = open_store(url, clock=lambda: NOW)
    EventLog(store.engine).note(BUSY, [new_link_event(link(WEB, DB, 5432))])
    watch = PolicyWatch(
        watch_id="w",
        name="w",
        yaml="",
        author="me",
        reason="",
        began_at=NOW,
        ends_at=NOW + timedelta(days=1),
    )
    PolicyWatches(store.engine).begin(BUSY, watch)
    for cluster in (BUSY, CALM):
        keeper(store, cluster).step()
    store.close()
    assert number("wattle_events_holding", cluster=BUSY, kind="new-link") == 1
    assert number("wattle_events_holding", cluster=CALM, kind="new-link") == 0
    assert number("wattle_policy_watches", cluster=BUSY) == 1
    assert number("wattle_policy_watches", cluster=CALM) == 0


async def test_a_step_that_waits_is_not_one_that_costs(tmp_path: Path) -> None:
    """On a busy machine each takes seconds: the next must not be minutes away. By the time it took it would be 50 s."""
    url = f"sqlite:///{tmp_path / 'wattle.db'}"
    migrate(url)
    store = open_store(url)
    steps = asyncio.Queue[None]()
    loop = asyncio.get_running_loop()

    def slow(_now: datetime) -> None:
        time.sleep(1)
        loop.call_soon_threadsafe(steps.put_nowait, None)

    made = Keeper(
        store=store, events=EventLog(store.engine), cluster=BUSY, leading={"slow": slow}, interval_seconds=0.01
    )
    running = asyncio.create_task(made.run())
    async with asyncio.timeout(30):
        for _ in range(2):
            await steps.get()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    store.close()
