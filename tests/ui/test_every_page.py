"""Every page, at both widths and in both themes: a picture, nothing sideways, nothing that axe-core finds."""

import contextlib
from ipaddress import IPv4Address, ip_network
from pathlib import Path
from urllib.parse import quote

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from aggregator.errors import InputError
from aggregator.model.decision import Alias, Choice
from aggregator.model.link import link_id
from aggregator.model.workload import Address
from aggregator.services.authority.caller import developer
from aggregator.services.question import WorkloadRef
from tests.browser import photograph
from tests.integration.services.world import (
    Seen,
    World,
    build,
    controller,
    dns_objects,
    link,
    pod,
    record,
    workload,
)
from tests.ui.shop import CASSANDRA, JAVAAPP, PARTNER, SHOP, objects, served, shop

JAVA = f"/workloads/{SHOP}/Deployment/javaapp"
PAGES = {
    "home": "/",
    "namespace": f"/namespaces/{SHOP}",
    "ingress": f"{JAVA}/ingress",
    "egress": f"{JAVA}/egress",
    "topology": f"{JAVA}/topology",
    "policy": f"{JAVA}/policy",
    "export": f"{JAVA}/exports/cilium",
    "applied": f"/workloads/{SHOP}/Deployment/redis/applied",
    "history": f"{JAVA}/history",
    "link": f"{JAVA}/links/{link_id(link(JAVAAPP, PARTNER, 443))}",
    "policies": "/policies",
    "addresses": "/addresses",
    "drift": "/drift",
    "settings": "/settings",
    "findings": "/findings",
    "agents": "/agents",
    "not-found": "/nothing-here",
}
LOOKS = [(width, theme) for width in (1280, 390) for theme in ("light", "dark")]
JUDGED = [(1280, "light"), (390, "dark")]  # by axe: both layouts, both sets of colours
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]

# Text of one map that lies over text of another element of it.
OVERLAPS = """() => {
  const texts = [...document.querySelectorAll(".map text")].filter((t) => t.textContent.trim());
  const boxes = texts.map((t) => [t.textContent, t.getBoundingClientRect()]);
  const over = (a, b) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1;
  return boxes.flatMap(([a, x], i) => boxes.slice(i + 1).filter(([, y]) => over(x, y)).map(([b]) => `${a} | ${b}`));
}"""


@pytest.fixture(scope="module")
def decided(tmp_path_factory: pytest.TempPathFactory):
    """The shop, read only: one server for every picture."""
    world = shop(tmp_path_factory.mktemp("shop"))
    ref = WorkloadRef(namespace=SHOP, kind="Deployment", name="javaapp")
    identity = str(link_id(link(JAVAAPP, CASSANDRA, 9042)))
    deciding = world.review().deciding
    deciding.decide_links(developer(), ref, [identity], Choice.EXCLUDE, reason="being retired", if_match="*")
    with served(world) as address:
        yield f"{address}/ui"
    world.close()


@pytest.mark.parametrize(("width", "theme"), LOOKS)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_can_be_shown(browser: Browser, decided: str, pictures: Path, name: str, width: int, theme: str) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)  # type: ignore[arg-type]
    page = context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda line: complaints.append(line.text) if "404" not in line.text else None)
    page.goto(f"{decided}{PAGES[name]}")
    photograph(page, pictures / f"{name}-{width}-{theme}.png")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page scrolls sideways"
    assert page.evaluate(OVERLAPS) == []
    assert complaints == []
    if (width, theme) in JUDGED:
        found = Axe().run(page, options={"runOnly": TAGS})
        assert found.violations_count == 0, found.generate_report()
    context.close()


def test_development_mode_is_said_on_every_page(page: Page, decided: str) -> None:
    for name, path in PAGES.items():
        if name != "not-found":  # its 404 would be a complaint
            page.goto(f"{decided}{path}")
            expect(page.get_by_role("banner").get_by_text("Development mode").first).to_be_visible()


def test_the_first_run_says_what_happens_next(page: Page, tmp_path: Path, pictures: Path) -> None:
    world = build(tmp_path, dns_objects(), ())
    with served(world) as address:
        page.goto(f"{address}/ui/")
        expect(page.get_by_role("heading", level=1)).to_contain_text("has begun to watch")
        photograph(page, pictures / "first-run-1280-light.png")
    world.close()


@pytest.mark.parametrize("count", [5, 40, 200])
def test_no_text_lies_over_other_text_on_a_large_map(page: Page, site: str, world: World, count: int) -> None:
    """Workloads on both sides, with names of all lengths, and addresses outside; the map has room for 120 lines."""
    seen: list[Seen] = []
    for number in range(count):
        peer = workload(SHOP, "Deployment", f"{'a-long-name-' * (number % 5)}{number}")
        address = Address(cluster="default", ip=_address(number))
        seen.append(Seen(link=link(*((JAVAAPP, peer) if number % 2 else (peer, JAVAAPP)), 1000 + number), count=1))
        seen.append(Seen(link=link(JAVAAPP, address, 1000 + number), count=1))
    record(world.store, seen)
    for path, most in ((f"{JAVA}/topology", 120), (f"/namespaces/{SHOP}", 120)):
        page.goto(f"{site}{path}")
        expect(page.locator(".map")).to_be_visible()
        assert page.locator(".map .card").count() >= min(count, most // 3)
        assert page.evaluate(OVERLAPS) == []


def test_text_that_lies_over_other_text_is_found(page: Page, site: str) -> None:
    page.goto(f"{site}{JAVA}/topology")
    page.evaluate(
        """() => {
          const [one, other] = document.querySelectorAll(".map .port");
          for (const at of ["x", "y"]) one.setAttribute(at, other.getAttribute(at));
        }"""
    )
    assert len(page.evaluate(OVERLAPS)) == 1


def _address(number: int) -> IPv4Address:
    return IPv4Address(f"198.51.{number // 250}.{number % 250 + 1}")


HOSTILE = "<img src=x onerror=window.hacked=1>"


def test_hostile_names_labels_commands_and_aliases_are_inert(page: Page, site: str, world: World) -> None:
    """Whatever a cluster or a person calls things: it is text. What a browser makes of it is asked, not the source."""
    stranger = workload(SHOP, "Deployment", HOSTILE)
    labels = {"app": HOSTILE, HOSTILE: "x"}
    world.show([*objects(), *controller(stranger, labels), pod(SHOP, HOSTILE, "10.244.0.66", stranger, labels, 80)])
    hostile = Seen(
        link=link(JAVAAPP, stranger, 80),
        service=f"{SHOP}/{HOSTILE}:80",
        process=HOSTILE,
        src_pod=f"{SHOP}/{HOSTILE}",
        dst_pod=f"{SHOP}/{HOSTILE}",
    )
    record(world.store, [hostile])
    ref = WorkloadRef(namespace=SHOP, kind="Deployment", name="javaapp")
    identity = str(link_id(hostile.link))
    deciding = world.review().deciding
    deciding.decide_links(developer(), ref, [identity], Choice.EXCLUDE, reason=HOSTILE, if_match="*")
    with contextlib.suppress(InputError):  # refused is inert, too
        alias = Alias(name=HOSTILE, networks=(ip_network("203.0.113.10/32"),), domains=(), allowed=False)
        deciding.set_alias(developer(), alias, extend=True, reason=HOSTILE, if_match="*")
    told = 0
    for path in [*PAGES.values(), f"{JAVA}/links/{identity}", f"{JAVA}/egress?q={quote(HOSTILE)}"]:
        if path == PAGES["not-found"]:  # its 404 would be a complaint
            continue
        page.goto(f"{site}{path}")
        assert page.locator("img").count() == 0, path
        assert page.evaluate("window.hacked") is None, path
        told += HOSTILE in page.locator("body").inner_text()
    assert told >= 5, "it was to be seen"


def test_the_same_picture_on_every_reload(page: Page, site: str) -> None:
    page.goto(f"{site}{JAVA}/topology")
    first = page.locator("#map").inner_html()
    page.reload()
    assert page.locator("#map").inner_html() == first
