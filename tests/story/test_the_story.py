"""What the page is made for, from real traffic to the YAML that holds its word, driven in a browser.

A real lab, a real agent, a real aggregator: the sample cases of the field, decided as a person decides them.
"""

import re
from pathlib import Path

import yaml
from playwright.sync_api import Page, expect

from aggregator.model.networkpolicy import NetworkPolicy
from aggregator.model.protocol import Protocol
from aggregator.model.verdict import Verdict
from aggregator.policy.manifest.readback import read_back
from tests.browser import photograph
from tests.watched import Watched

SHOP = "example-java-app"
JAVAAPP, REDIS, CASSANDRA, CLIENT = (f"{SHOP}/{name}" for name in ("javaapp", "redis", "cassandra", "client"))
EGRESS = f"/workloads/{SHOP}/Deployment/javaapp/egress"
INGRESS = f"/workloads/{SHOP}/Deployment/javaapp/ingress"
COLLECTOR = "/workloads/audit/Deployment/collector"
PARTNER = "203.0.113.10"
RED = "rgb(193, 39, 45)"


def line_of(page: Page, switch: str) -> str:
    """The map's line of the row whose switch is called so."""
    row = page.locator("tr", has=page.get_by_role("switch", name=switch)).get_attribute("id") or ""
    return f'#map .link[data-links~="{row.removeprefix("row-")}"]'


def stroke(page: Page, line: str) -> tuple[str, str]:
    """(dashes, colour) as they are painted."""
    found = page.locator(f"{line} .line").first.evaluate(
        "line => [getComputedStyle(line).strokeDasharray, getComputedStyle(line).stroke]"
    )
    return (found[0], found[1])


def taken(page: Page, folder: Path) -> tuple[NetworkPolicy, ...]:
    """What the Download gives, read back."""
    with page.expect_download() as waiting:
        page.get_by_role("link", name="Download").click()
    waiting.value.save_as(folder / "taken.yaml")
    return read_back((folder / "taken.yaml").read_text())


def test_1_look_decide_take_the_policy(page: Page, site: str, watched: Watched, tmp_path: Path, pictures: Path) -> None:
    page.goto(f"{site}/")
    page.get_by_role("table", name="Namespaces").get_by_role("link", name=SHOP, exact=True).click()
    page.get_by_role("table", name="Workloads of").get_by_role("link", name="javaapp", exact=True).click()
    expect(page).to_have_url(f"{site}{EGRESS}")
    expect(page.get_by_role("table", name="Egress of javaapp")).to_contain_text("cassandra")
    expect(page.get_by_role("table", name="Egress of javaapp")).to_contain_text(PARTNER)
    cassandra, partner = line_of(page, "cassandra, TCP 9042"), line_of(page, f"{PARTNER}, TCP 443")
    expect(page.locator(cassandra)).to_have_class("link allowed")
    expect(page.locator(partner)).to_have_class("link denied")

    page.get_by_role("switch", name="cassandra, TCP 9042").click()
    expect(page.locator(cassandra)).to_have_class("link denied")
    dashes, colour = stroke(page, cassandra)
    assert (dashes != "none", colour) == (True, RED)

    page.locator("tr", has=page.get_by_role("switch", name=f"{PARTNER}, TCP 443")).get_by_text("Decide").click()
    decide = page.get_by_role("group", name=f"Decide about {PARTNER}")
    decide.get_by_label(f"CIDR that holds {PARTNER}").fill("203.0.113.8/29")
    decide.get_by_role("button", name="Save decision").click()
    expect(page.locator(partner)).to_have_class("link allowed")
    assert stroke(page, partner)[0] == "none"
    expect(page.locator("#yaml")).to_contain_text("203.0.113.8/29")
    expect(page.locator("#policy")).to_contain_text("Proved")
    photograph(page, pictures / "story-1-1280-light.png")

    policies = taken(page, tmp_path)
    assert watched.reaches(policies, JAVAAPP, REDIS, 6379) is Verdict.ALLOWED
    assert watched.reaches(policies, JAVAAPP, CASSANDRA, 9042) is Verdict.DENIED
    assert watched.reaches(policies, CLIENT, CASSANDRA, 9042) is Verdict.ALLOWED, "nobody asked to shut cassandra"


def test_2_the_static_addresses_of_a_proxy(page: Page, site: str, watched: Watched, tmp_path: Path) -> None:
    page.goto(f"{site}{EGRESS}")
    page.get_by_text("Add a CIDR and port").click()
    page.get_by_label("CIDR", exact=True).fill("198.51.100.0/28")
    page.get_by_label("Port", exact=True).fill("3128")
    page.get_by_role("button", name="Allow it").click()
    expect(page.get_by_role("switch", name="198.51.100.0/28 in the policy")).to_be_checked()
    expect(page.locator("#policy")).to_contain_text("Proved")
    (policy,) = [p for p in yaml.safe_load_all(page.locator("#yaml").inner_text()) if p]
    (rule,) = [r for r in policy["spec"]["egress"] if "ipBlock" in r["to"][0]]
    assert rule["to"] == [{"ipBlock": {"cidr": "198.51.100.0/28"}}]
    assert rule["ports"] == [{"protocol": "TCP", "port": 3128}]
    assert watched.reaches(taken(page, tmp_path), JAVAAPP, REDIS, 6379) is Verdict.ALLOWED, "the rows stay"


def test_3_only_inside_the_namespace_in_both_directions(
    page: Page, site: str, watched: Watched, tmp_path: Path
) -> None:
    for tab in (EGRESS, INGRESS):
        page.goto(f"{site}{tab}")
        page.get_by_role("button", name="Allow inside namespace").click()
        expect(page.get_by_role("button", name="Allow inside namespace")).to_have_attribute("aria-pressed", "true")
    scraped = line_of(page, "prometheus, TCP 8080")
    expect(page.locator(scraped)).to_have_class("link denied")
    expect(page.locator(line_of(page, "client, TCP 8080"))).to_have_class("link allowed")
    expect(page.locator("#policy")).to_contain_text("Proved")
    policies = taken(page, tmp_path)
    assert watched.reaches(policies, JAVAAPP, REDIS, 6379) is Verdict.ALLOWED
    assert watched.reaches(policies, CLIENT, JAVAAPP, 8080) is Verdict.ALLOWED
    assert watched.reaches(policies, "monitoring/prometheus", JAVAAPP, 8080) is Verdict.DENIED
    assert watched.reaches(policies, JAVAAPP, "monitoring/prometheus", 9090) is Verdict.DENIED
    assert watched.reaches(policies, JAVAAPP, "kube-system/coredns", 53, Protocol.UDP) is Verdict.ALLOWED


def test_4_one_other_namespace_by_egress_alone(
    page: Page, site: str, watched: Watched, tmp_path: Path, pictures: Path
) -> None:
    page.goto(f"{site}{COLLECTOR}/ingress")
    expect(page.get_by_role("table", name="Ingress of collector")).to_contain_text("Nothing seen coming in")
    page.get_by_role("button", name="Block all").click()
    expect(page.get_by_role("button", name="Block all")).to_have_attribute("aria-pressed", "true")
    page.get_by_role("link", name=re.compile("^Egress")).click()
    expect(page.locator(line_of(page, "javaapp, TCP 8080"))).to_have_class("link allowed")
    expect(page.locator("#policy")).to_contain_text("Proved")
    photograph(page, pictures / "story-4-1280-light.png")
    policies = taken(page, tmp_path)
    assert watched.reaches(policies, "audit/collector", JAVAAPP, 8080) is Verdict.ALLOWED
    assert watched.reaches(policies, "audit/collector", "kube-system/coredns", 53, Protocol.UDP) is Verdict.ALLOWED
    assert watched.reaches(policies, "audit/collector", "audit/neighbour", 8080) is Verdict.DENIED
    assert watched.reaches(policies, "audit/neighbour", "audit/collector", 8080) is Verdict.DENIED


def test_5_a_namespace_that_lacks_its_label_until_it_comes(
    page: Page, site: str, watched: Watched, tmp_path: Path, pictures: Path
) -> None:
    """Every API server writes the name label itself: it is lacking where the lists do not let a rule use it."""
    exclude(page, site, "kubernetes.io/metadata.name\nteam")
    page.goto(f"{site}{INGRESS}")
    cannot_be_named(page)
    photograph(page, pictures / "story-5-1280-light.png")
    exclude(page, site, "")
    page.goto(f"{site}{INGRESS}")
    recovered(page, watched, tmp_path)


def cannot_be_named(page: Page) -> None:
    """The message on top, the red line, no entry in the YAML."""
    message = page.get_by_role("group", name="In the way of the policy")
    expect(message).to_contain_text("monitoring")
    expect(message).to_contain_text("Permit kubernetes.io/metadata.name in the namespace label lists")
    table = page.get_by_role("table", name="Ingress of javaapp")
    assert _top(message.bounding_box()) < _top(table.bounding_box())
    scraped = line_of(page, "prometheus, TCP 8080")
    expect(page.locator(scraped)).to_have_class("link denied")
    assert stroke(page, scraped)[1] == RED
    expect(page.get_by_role("switch", name="prometheus, TCP 8080")).not_to_be_checked()
    expect(page.locator("#yaml")).not_to_contain_text("monitoring")


def recovered(page: Page, watched: Watched, folder: Path) -> None:
    expect(page.get_by_role("group", name="In the way of the policy")).to_have_count(0)
    expect(page.locator(line_of(page, "prometheus, TCP 8080"))).to_have_class("link allowed")
    expect(page.get_by_role("switch", name="prometheus, TCP 8080")).to_be_checked()
    policies = taken(page, folder)
    assert watched.reaches(policies, "monitoring/prometheus", JAVAAPP, 8080) is Verdict.ALLOWED


def exclude(page: Page, site: str, keys: str) -> None:
    page.goto(f"{site}/settings")
    page.get_by_label("Namespaces: never these").fill(keys)
    page.get_by_role("button", name="Save labels").click()
    expect(page.get_by_label("Namespaces: never these")).to_have_value(keys)


def _top(box: object) -> float:
    assert isinstance(box, dict)
    return float(box["y"])
