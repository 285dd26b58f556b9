"""Every page, at both widths and in both themes: a picture, nothing sideways, nothing that axe-core finds."""

from ipaddress import IPv4Address
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from aggregator.model.decision import Choice
from aggregator.model.link import link_id
from aggregator.model.workload import Address
from aggregator.services.authority.caller import developer
from aggregator.services.question import WorkloadRef
from tests.browser import photograph
from tests.integration.services.world import Seen, World, build, dns_objects, link, record
from tests.ui.shop import CASSANDRA, JAVAAPP, PARTNER, SHOP, served, shop

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
    outside = (Address(cluster="default", ip=_address(number)) for number in range(count))
    record(world.store, [Seen(link=link(JAVAAPP, end, 1000 + number), count=1) for number, end in enumerate(outside)])
    page.goto(f"{site}{JAVA}/topology")
    expect(page.locator(".map")).to_be_visible()
    assert page.evaluate(OVERLAPS) == []


def _address(number: int) -> IPv4Address:
    return IPv4Address(f"198.51.{number // 250}.{number % 250 + 1}")


def test_the_same_picture_on_every_reload(page: Page, site: str) -> None:
    page.goto(f"{site}{JAVA}/topology")
    first = page.locator("#map").inner_html()
    page.reload()
    assert page.locator("#map").inner_html() == first
