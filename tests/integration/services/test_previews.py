"""What proposals would do, what is applied, and why a link is blocked."""

from collections.abc import Mapping
from typing import Any

import pytest
import yaml

from aggregator.model.dryrun import DryRunAnswer
from aggregator.model.link import link_id
from aggregator.services.authority.caller import developer
from aggregator.services.question import WorkloadRef
from tests.integration.services.world import DB, OTHER, SHOP, WEB, World, dns_objects, link, other_objects, shop_objects

ME = developer()
WEB_REF = WorkloadRef(namespace=SHOP, kind="Deployment", name="web")


def guard(name: str = "db-guard", app: str = "report") -> dict[str, object]:
    """Lets one caller alone reach the database."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": SHOP},
        "spec": {
            "podSelector": {"matchLabels": {"app": "db"}},
            "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": app}}}], "ports": [{"port": 5432}]}],
        },
    }


@pytest.fixture
def guarded(world: World) -> World:
    world.show([*dns_objects(), *shop_objects(), *other_objects(), guard()])
    return world


def test_a_simulation_names_what_would_be_cut(world: World) -> None:
    found = world.review().simulation(ME, SHOP)
    cut = {(replay.link, replay.bucket) for replay in found.replays}
    assert ("shop/Deployment/web -> 203.0.113.10 TCP/443", "would-be-cut") in cut
    assert found.counts["unchanged"] > 0
    assert all(replay.bucket != "unchanged" for replay in found.replays)


def test_a_diff_says_what_a_download_would_overwrite(world: World) -> None:
    assert world.review().diff(ME, SHOP).overwrites == []
    world.show([*dns_objects(), *shop_objects(), *other_objects(), guard(name="wattle-db")])
    found = world.review().diff(ME, SHOP)
    assert found.overwrites == found.changed == ["shop/wattle-db"]
    assert "shop/wattle-web" in found.added
    assert "wattle-db" in found.text


def test_a_plan_applies_every_policy_once(world: World) -> None:
    proposal, plan = world.review().proposal(ME, SHOP), world.review().plan(ME, SHOP)
    assert sorted(step.policy for step in plan.steps) == sorted(proposal.policies)


@pytest.mark.parametrize("form", ["kustomize", "cilium", "calico", "admin"])
def test_an_export_is_certified_or_says_why_not(world: World, form: str) -> None:
    found = world.review().export(ME, SHOP, form)  # type: ignore[arg-type]
    assert found.files
    assert found.certified or found.differences or found.refused
    assert found.label.startswith("certified" if found.certified else "not certified")


def test_an_applied_policy_is_shown_with_words_yaml_and_hits(guarded: World) -> None:
    found = guarded.review().applied(ME, SHOP)
    (policy,) = found.policies
    assert (policy.selects, policy.directions) == (["shop/StatefulSet/db"], ["Ingress"])
    assert 'name: "db-guard"' in policy.yaml
    assert "app=report" in policy.words.replace(" ", "") or "report" in policy.words
    assert (policy.use.allowed_links, policy.use.rules) == (1, [2])
    assert policy.use.denied_links == 2
    assert policy.use.denied_attempts == 7
    assert not policy.made_by_wattle
    uncovered = {(row.workload, row.direction) for row in found.uncovered}
    assert ("shop/StatefulSet/db", "Ingress") not in uncovered
    assert ("shop/StatefulSet/db", "Egress") in uncovered


def test_an_unused_policy_can_be_asked_for(world: World) -> None:
    nothing = guard(name="typo")
    nothing["spec"]["podSelector"] = {"matchLabels": {"app": "dbb"}}  # type: ignore[index]
    world.show([*dns_objects(), *shop_objects(), *other_objects(), guard(), nothing])
    assert [policy.name for policy in world.review().applied(ME, SHOP, unused=True).policies] == ["typo"]


def test_a_blocked_link_says_which_side_blocks_it_and_the_smallest_change(guarded: World) -> None:
    found = guarded.review().explain_link(ME, WEB_REF, str(link_id(link(WEB, DB, 5432))))
    assert found.applied.verdict == "denied"
    assert found.applied.ingress is not None
    assert found.applied.ingress.policies == ["shop/db-guard"]
    (fix,) = found.fixes
    assert (fix.policy, fix.direction) == ("shop/db-guard", "Ingress")
    assert '"app": "web"' in fix.yaml
    assert "5432" in fix.yaml


def test_policies_of_a_workload_are_those_that_select_it(guarded: World) -> None:
    vault = WorkloadRef(namespace=OTHER, kind="StatefulSet", name="vault")
    assert [policy.name for policy in guarded.review().applied(ME, vault).policies] == ["vault-guard"]
    assert guarded.review().applied(ME, WEB_REF).policies == []


def test_a_stale_view_turns_verdicts_unknown(world: World) -> None:
    class Old:
        """The same view, too old."""

        def __getattr__(self, name: str) -> object:
            return True if name == "stale" else getattr(world.source, name)

    rows = world.review(view=Old()).workload_links(ME, WEB_REF)
    assert {row.applied.verdict for row in rows} == {"unknown"}


def test_addresses_are_listed_with_who_speaks_with_them(world: World) -> None:
    (row,) = world.review().addresses(ME)
    assert (row.ip, row.address_class, row.workloads, row.ports) == (
        "203.0.113.10",
        "external",
        ["shop/Deployment/web"],
        ["TCP 443"],
    )
    assert world.review().addresses(ME, OTHER) == []


def test_findings_of_applied_policies_are_told(guarded: World) -> None:
    codes = {finding.code for finding in guarded.review().findings(ME, SHOP)}
    assert codes


def test_every_policy_of_the_cluster_can_be_asked_for(guarded: World) -> None:
    found = guarded.review().applied(ME, "")
    assert [f"{policy.namespace}/{policy.name}" for policy in found.policies] == [
        "ledger/vault-guard",
        "shop/db-guard",
    ]


class Answering:
    """An API server that says this to every policy; the real one is asked in the tier that has it."""

    def __init__(self, answer: DryRunAnswer) -> None:
        self.answer = answer
        self.asked: list[Mapping[str, Any]] = []

    def try_policy(self, policy: Mapping[str, Any]) -> DryRunAnswer:
        self.asked.append(policy)
        return self.answer


def test_a_file_that_would_overwrite_somebody_elses_policy_says_so_itself(world: World) -> None:
    untouched = world.review().proposal(ME, SHOP)
    assert untouched.overwrites == []
    world.show([*dns_objects(), *shop_objects(), *other_objects(), guard(name="wattle-db")])
    found = world.review().proposal(ME, SHOP)
    assert found.overwrites == ["shop/wattle-db"]
    assert found.yaml.startswith("# Overwrites the NetworkPolicy shop/wattle-db, which Wattle did not make")
    assert list(yaml.safe_load_all(found.yaml)) == list(yaml.safe_load_all(untouched.yaml))
    assert "overwrites-policy" in {finding.code for finding in found.findings}
    assert any("wattle-db" in note for note in world.review().export(ME, SHOP, "kustomize").notes)


def test_a_dry_run_asks_about_each_policy_of_the_proposal_and_repeats_the_answer(world: World) -> None:
    server = Answering(DryRunAnswer(outcome="refused", message="HTTP 403: quota"))
    found = world.review(dry_run=server).dry_run(ME, SHOP)
    proposal = world.review().proposal(ME, SHOP)
    assert server.asked == list(yaml.safe_load_all(proposal.yaml))
    assert [tried.policy for tried in found.policies] == proposal.policies
    assert {(tried.outcome, tried.message) for tried in found.policies} == {("refused", "HTTP 403: quota")}
    assert found.digest == proposal.digest
    assert found.text == f"the API server would take 0 of {len(proposal.policies)}; nothing was kept"


def test_without_an_api_server_a_dry_run_names_the_way_out(world: World) -> None:
    found = world.review().dry_run(ME, SHOP)
    assert not found.available
    assert "kubectl apply --dry-run=server" in found.text
