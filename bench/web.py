"""What a person waits for on the page: until it can be used, and until a decision is seen, in a real browser.

Enters: nothing; serves a workload with 20, 200 and 1,000 links from an embedded SQLite and opens it in Debian's
Chromium. Leaves: figures in build/bench/web.jsonl, medians of wall time in the browser, with the work of the server in
CPU beside them. The bar of a redraw is 300 ms: from the click on a row until the row, the map and the YAML have
changed; how long its proof takes to arrive is a figure of its own.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address
from pathlib import Path
from threading import Thread
from typing import Any

import uvicorn
from playwright.sync_api import Page, sync_playwright

from aggregator.__main__ import collect_rarely
from aggregator.api.rest import Development, create_api
from aggregator.model.workload import Address
from aggregator.web.site import add_web
from bench.report import Bar, Figure, emit, median_and_spread
from tests.integration.services.world import (
    CLUSTER,
    Seen,
    World,
    build,
    controller,
    dns_objects,
    link,
    namespace,
    pod,
    workload,
)

SIZES = (20, 200, 1000)
REPETITIONS = 5
BAR_MILLISECONDS = 300.0
NAMESPACES = ("shop", "ledger", "web")
HUB = workload("shop", "Deployment", "hub")
EGRESS = "/ui/workloads/shop/Deployment/hub/egress"
WAIT_MILLISECONDS = 120_000

# From the click until row, map and YAML are other ones and painted; the proof by itself.
REDRAW = """async (button) => {
  const text = (id) => document.getElementById(id)?.textContent ?? "";
  const started = performance.now();
  const painted = () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  const until = (holds) => new Promise((done) => {
    const look = () => { if (holds()) { watch.disconnect(); done(); } };
    const watch = new MutationObserver(look);
    watch.observe(document.body, { childList: true, subtree: true, attributes: true });
    look();
  });
  const id = button.id;
  const [yaml, checked] = [text("yaml"), button.getAttribute("aria-checked")];
  const map = document.querySelector("#map svg");
  button.click();
  await until(() => document.getElementById(id)?.getAttribute("aria-checked") !== checked
    && text("yaml") !== yaml && document.querySelector("#map svg") !== map
    && !document.querySelector(".htmx-settling"));
  await painted();
  const redrawn = performance.now() - started;
  await until(() => document.querySelector("#proof")?.textContent.includes("Proved"));
  return [redrawn, performance.now() - started];
}"""


def world(directory: Path, links: int) -> World:
    """Peers in three namespaces, both directions, and a tenth of the links to addresses outside."""
    outside = max(links // 10, 1)
    peers = [workload(NAMESPACES[n % 3], "Deployment", f"app-{n}") for n in range(links - outside)]
    objects = [*dns_objects(), *(namespace(name) for name in NAMESPACES), *controller(HUB, {"app": "hub"})]
    objects.append(pod("shop", "hub-1", "10.244.0.9", HUB, {"app": "hub"}, 8000))
    seen = []
    for number, peer in enumerate(peers):
        objects += controller(peer, {"app": peer.name})
        ip = f"10.244.{1 + number // 250}.{number % 250 + 1}"
        objects.append(pod(peer.namespace, f"{peer.name}-1", ip, peer, {"app": peer.name}, 8000))
        ends = (HUB, peer) if number % 2 else (peer, HUB)
        seen.append(Seen(link=link(*ends, 8000), count=10 + number, process="java"))
    for number in range(outside):
        address = Address(cluster=CLUSTER, ip=IPv4Address("198.51.100.0") + number)
        seen.append(Seen(link=link(HUB, address, 443), count=3, process="java"))
    return build(directory, objects, seen)


@contextmanager
def served(made: World) -> Iterator[str]:
    api = add_web(create_api(made.review(), Development()))
    server = uvicorn.Server(uvicorn.Config(api, port=0, log_level="warning", access_log=False))
    thread = Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def interactive(page: Page, address: str) -> float:
    """Until the document is whole and its modules have run, in milliseconds."""
    page.goto(address)
    return float(page.evaluate("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd"))


def measured(page: Page, address: str) -> Iterator[tuple[str, list[float], list[float], float | None]]:
    """(what, wall milliseconds, server's CPU milliseconds, bar)."""
    page.goto(address)  # the first question of a cluster view computes what later ones share
    opened, opened_cpu = _timed(lambda: [interactive(page, address)])
    yield "interactive", [one[0] for one in opened], opened_cpu, None
    page.locator("#proof", has_text="Proved").wait_for()
    switches = page.locator(".links .switch[id]:enabled")
    names = [switches.nth(number).get_attribute("id") for number in range(min(REPETITIONS, switches.count()))]
    left = iter(names)

    def decide() -> list[float]:
        return list(page.locator(f"#{next(left)}").evaluate(REDRAW))

    redrawn, cpu = _timed(decide, len(names))
    yield "redraw after a decision", [one[0] for one in redrawn], cpu, BAR_MILLISECONDS
    yield "proof of the new YAML", [one[1] for one in redrawn], cpu, None


def _timed(ask: Callable[[], list[float]], times: int = REPETITIONS) -> tuple[list[list[float]], list[float]]:
    found, spent = [], []
    for _ in range(times):
        started = time.process_time()
        found.append(ask())
        spent.append((time.process_time() - started) * 1000)
    return found, spent


def figures(browser: Any) -> Iterator[Figure]:
    for size in SIZES:
        with tempfile.TemporaryDirectory() as directory:
            made = world(Path(directory), size)
            with served(made) as address:
                page = browser.new_page(viewport={"width": 1280, "height": 900})
                page.set_default_timeout(WAIT_MILLISECONDS)
                for what, walls, cpu, bar in measured(page, f"{address}{EGRESS}"):
                    middle, spread = median_and_spread(walls)
                    yield Figure(
                        figure=f"page of a workload with {size} links: {what}",
                        value=middle,
                        unit="ms",
                        against=f"server {median_and_spread(cpu)[0]:.0f} ms CPU, the bench's driver included",
                        bar=Bar(comparison="<=", limit=bar) if bar else None,
                        spread=spread,
                    )
                page.close()
            made.close()


def main() -> bool:
    collect_rarely()  # as the aggregator's own process does
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium",
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        holds = emit("web", figures(browser))
        browser.close()
    return holds


if __name__ == "__main__":
    main()
