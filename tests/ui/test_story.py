"""The story that the page is made for: open javaapp, decide, take the policy, and hold it to its word."""

from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from aggregator.model.decision import Alias, Choice
from aggregator.model.link import link_id
from aggregator.model.verdict import Verdict
from aggregator.model.workload import Address
from aggregator.policy.manifest.readback import read_back
from aggregator.policy.profiles.known import profile_named
from aggregator.services.authority.caller import developer
from aggregator.services.question import WorkloadRef
from aggregator.services.verdicts import Verdicts
from tests.integration.services.world import CLUSTER, Seen, World, link, record
from tests.ui.shop import CASSANDRA, JAVAAPP, MONGO, PARTNER, REDIS

EGRESS = "/workloads/example-java-app/Deployment/javaapp/egress"
TO_CASSANDRA, TO_PARTNER = link(JAVAAPP, CASSANDRA, 9042), link(JAVAAPP, PARTNER, 443)
TO_REDIS, TO_MONGO = link(JAVAAPP, REDIS, 6379), link(JAVAAPP, MONGO, 27017)


def line_to(page: Page, identity: int) -> str:
    return f'#map .link[data-links~="{identity}"]'


def verdicts(world: World, yaml: str) -> Verdicts:
    return Verdicts(world.source.snapshot, read_back(yaml), profile_named("generic"))


def test_look_decide_take_the_policy(page: Page, site: str, world: World, tmp_path: Path) -> None:
    page.goto(f"{site}/")
    page.get_by_role("link", name="example-java-app", exact=True).click()
    page.get_by_role("table", name="Workloads of").get_by_role("link", name="javaapp", exact=True).click()
    expect(page).to_have_url(f"{site}{EGRESS}")

    cassandra, partner = link_id(TO_CASSANDRA), link_id(TO_PARTNER)
    expect(page.locator(f"#row-{cassandra}")).to_contain_text("cassandra")
    expect(page.locator(f"#row-{partner}")).to_contain_text("203.0.113.10")
    expect(page.locator(line_to(page, cassandra))).to_have_class("link allowed")
    expect(page.locator(line_to(page, partner))).to_have_class("link denied")
    expect(page.locator("#yaml")).to_contain_text("9042")

    page.evaluate("window.sameDocument = true")
    page.get_by_role("switch", name="cassandra, TCP 9042").click()
    expect(page.locator(line_to(page, cassandra))).to_have_class("link denied")
    dashes = page.locator(f"{line_to(page, cassandra)} .line").first.evaluate(
        "line => [getComputedStyle(line).strokeDasharray, getComputedStyle(line).stroke]"
    )
    assert dashes[0] != "none"
    assert dashes[1] == "rgb(193, 39, 45)"
    expect(page.locator("#yaml")).not_to_contain_text("9042")
    expect(page.locator(f"#row-{cassandra}")).to_contain_text("Left out by developer")
    expect(page.get_by_role("switch", name="cassandra, TCP 9042")).to_be_focused()
    expect(page.locator("#policy")).to_contain_text("Proved")

    page.get_by_role("switch", name="203.0.113.10, TCP 443").click()
    expect(page.locator(line_to(page, partner))).to_have_class("link allowed")
    expect(page.locator("#yaml")).to_contain_text("203.0.113.10/32")
    assert page.evaluate("window.sameDocument"), "the page was loaded again"

    with page.expect_download() as waiting:
        page.get_by_role("link", name="Download").click()
    taken = tmp_path / "javaapp.yaml"
    waiting.value.save_as(taken)
    held = verdicts(world, taken.read_text())
    assert held.of(TO_REDIS).verdict is Verdict.ALLOWED
    assert held.of(TO_MONGO).verdict is Verdict.ALLOWED
    assert held.of(TO_PARTNER).verdict is Verdict.ALLOWED
    assert held.of(TO_CASSANDRA).verdict is Verdict.DENIED


def test_a_decision_is_taken_back_where_it_was_made(page: Page, site: str) -> None:
    page.goto(f"{site}{EGRESS}")
    cassandra = link_id(TO_CASSANDRA)
    page.get_by_role("switch", name="cassandra, TCP 9042").click()
    page.get_by_role("button", name="Undo: cassandra").click()
    expect(page.locator(line_to(page, cassandra))).to_have_class("link allowed")
    page.get_by_role("link", name="History").click()
    expect(page.get_by_role("table", name="Decisions")).to_contain_text("developer")


def test_a_typed_cidr_is_in_the_policy_until_it_is_switched_off(page: Page, site: str) -> None:
    page.goto(f"{site}{EGRESS}")
    page.get_by_text("Add a CIDR and port").click()
    page.get_by_label("CIDR", exact=True).fill("198.51.100.0/24")
    page.get_by_label("Port", exact=True).fill("8443")
    page.get_by_role("button", name="Allow it").click()
    expect(page.locator("#yaml")).to_contain_text("198.51.100.0/24")
    page.get_by_role("switch", name="198.51.100.0/24 in the policy").click()
    expect(page.locator("#yaml")).not_to_contain_text("198.51.100.0/24")


def test_a_declared_caller_is_a_row_to_decide(page: Page, site: str) -> None:
    page.goto(f"{site}{EGRESS.replace('egress', 'ingress')}")
    declared = page.get_by_role("switch", name="kubernetes API server, TCP 8080")
    expect(declared).not_to_be_checked()
    declared.click()
    expect(declared).to_be_checked()
    expect(page.locator("#policy")).to_contain_text("Proved")
    expect(page.locator("#yaml")).to_contain_text("192.0.2.1/32")
    declared.click()
    expect(declared).not_to_be_checked()


def test_policies_beside_the_networkpolicies_say_what_counts_of_them(page: Page, site: str) -> None:
    page.goto(f"{site}/policies")
    beside = page.get_by_role("region", name="Beside the NetworkPolicies")
    expect(beside.locator("details", has_text="monitoring-may-scrape")).to_contain_text("evaluated: asked before")
    expect(beside.locator("details", has_text="grafana-l7")).to_contain_text("not evaluated")


def test_the_map_shows_the_service_on_the_path_and_one_card_for_an_alias(page: Page, site: str, world: World) -> None:
    second = Address(cluster=CLUSTER, ip=ip_address("203.0.113.11"))
    record(world.store, [Seen(link=link(JAVAAPP, second, 443), count=5)])
    networks = (ip_network("203.0.113.10/32"), ip_network("203.0.113.11/32"))
    alias = Alias(name="partner-api", networks=networks, domains=(), allowed=False)
    world.review().deciding.set_alias(developer(), alias, extend=True, reason="", if_match="*")
    page.goto(f"{site}{EGRESS.replace('egress', 'topology')}")
    mongo = page.get_by_role("link", name="TCP 27017: javaapp to mongo, allowed, through Service mongo:27017")
    expect(mongo).to_contain_text("via mongo")
    expect(page.get_by_role("group", name="partner-api, 2 addresses")).to_have_count(1)
    page.locator("#map .head", has_text="mongo").focus()
    pane = page.get_by_role("form", name="What is pointed at")
    expect(pane.get_by_role("heading", name="mongo", exact=True)).to_be_visible()
    expect(pane.locator("article.shown")).to_contain_text("app=mongo")
    expect(pane.locator("article.shown")).to_contain_text("TCP 27017")
    expect(pane.locator("article.shown")).to_contain_text("mongo:27017")


def test_a_range_is_allowed_at_the_addresss_row_and_shown_as_what_was_chosen(page: Page, site: str) -> None:
    page.goto(f"{site}{EGRESS}")
    page.locator(f"#row-{link_id(TO_PARTNER)}").get_by_text("Decide").click()
    decide = page.get_by_role("group", name="Decide about 203.0.113.10")
    decide.get_by_label("CIDR that holds 203.0.113.10").fill("203.0.113.8/30")
    decide.get_by_role("button", name="Save decision").click()
    expect(page.locator(line_to(page, link_id(TO_PARTNER)))).to_have_class("link allowed")
    expect(page.get_by_role("switch", name="203.0.113.8/30 in the policy")).to_be_checked()
    expect(page.locator("#decide-rows")).not_to_contain_text("typed-cidr")
    page.goto(f"{site}{EGRESS.replace('egress', 'links')}/{link_id(TO_PARTNER)}")
    expect(page.get_by_role("radio", name="Yes, a range")).to_be_checked()
    expect(page.get_by_label("CIDR that holds 203.0.113.10")).to_have_value("203.0.113.8/30")
    expect(page.get_by_role("group", name="Decide about")).to_contain_text("opens 3 addresses never seen")


def test_a_general_rule_replaces_the_rows(page: Page, site: str) -> None:
    page.goto(f"{site}{EGRESS}")
    page.get_by_role("button", name="Block all").click()
    expect(page.get_by_role("button", name="Block all")).to_have_attribute("aria-pressed", "true")
    expect(page.locator(line_to(page, link_id(TO_REDIS)))).to_have_class("link denied")
    page.get_by_role("button", name="Observed rows").click()
    expect(page.locator(line_to(page, link_id(TO_REDIS)))).to_have_class("link allowed")


def test_the_map_tells_more_of_what_has_the_focus(page: Page, site: str) -> None:
    page.goto(f"{site}{EGRESS.replace('egress', 'topology')}")
    page.get_by_role("link", name="TCP 9042: javaapp to cassandra, allowed").focus()
    pane = page.get_by_role("form", name="What is pointed at")
    expect(pane.get_by_role("heading", name="javaapp to cassandra")).to_be_visible()
    pane.get_by_role("button", name="Leave out").click()
    expect(page.locator(line_to(page, link_id(TO_CASSANDRA)))).to_have_class("link denied")
    expect(pane.get_by_role("heading", name="javaapp to cassandra")).to_be_visible()


def test_a_decision_is_made_by_keyboard_alone(page: Page, site: str) -> None:
    page.goto(f"{site}{EGRESS}")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.getAttribute('aria-label')") == "cassandra, TCP 9042 in the policy":
            break
    page.keyboard.press("Space")
    expect(page.locator(line_to(page, link_id(TO_CASSANDRA)))).to_have_class("link denied")
    expect(page.get_by_role("switch", name="cassandra, TCP 9042")).to_be_focused()


def test_somebody_elses_decision_in_between_is_told(page: Page, site: str, world: World) -> None:
    page.goto(f"{site}{EGRESS}")
    ref = WorkloadRef(namespace=JAVAAPP.namespace, kind=JAVAAPP.kind, name=JAVAAPP.name)
    identity = str(link_id(TO_MONGO))
    world.review().deciding.decide_links(developer(), ref, [identity], Choice.EXCLUDE, reason="", if_match="*")
    with page.expect_response(lambda answer: answer.status == 409):
        page.get_by_role("switch", name="cassandra, TCP 9042").click()
    expect(page.get_by_role("status")).to_contain_text("Somebody has decided here since you read it")
    expect(page.locator(line_to(page, link_id(TO_MONGO)))).to_have_class("link denied")
    expect(page.locator(line_to(page, link_id(TO_CASSANDRA)))).to_have_class("link allowed")


def test_an_address_gets_a_name(page: Page, site: str) -> None:
    page.goto(f"{site}/addresses")
    page.get_by_label("Select 203.0.113.10").check()
    page.get_by_label("Name for what is selected").fill("partner-api")
    page.get_by_role("button", name="Name", exact=True).click()
    expect(page.get_by_role("table", name="Addresses")).to_contain_text("partner-api")
    expect(page.get_by_role("table", name="Names")).to_contain_text("203.0.113.10/32")
    page.goto(f"{site}{EGRESS}")
    expect(page.locator(f"#row-{link_id(TO_PARTNER)}")).to_contain_text("partner-api")


@pytest.mark.parametrize("javascript", [False], ids=["without a script"])
def test_the_page_decides_without_a_script(browser, site: str, javascript: bool) -> None:
    context = browser.new_context(java_script_enabled=javascript)
    page = context.new_page()
    page.goto(f"{site}{EGRESS}")
    page.get_by_role("switch", name="cassandra, TCP 9042").click()
    expect(page).to_have_url(f"{site}{EGRESS}")
    expect(page.locator("#yaml")).not_to_contain_text("9042")
    context.close()
