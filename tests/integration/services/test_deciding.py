"""What people decide, what it does to tables and proposals, and how it is taken back."""

import json
import logging
from dataclasses import dataclass, replace
from ipaddress import ip_network

import pytest

from aggregator.errors import ConflictError, ForbiddenError, InputError, NotFoundError
from aggregator.model.decision import Alias, Choice, ClusterCIDRs, GeneralRule, TypedCIDR
from aggregator.model.link import link_id
from aggregator.model.protocol import Direction
from aggregator.model.workload import Workload
from aggregator.services.authority.caller import Caller, Resource, Verb, developer
from aggregator.services.deciding.decisions import ANY
from aggregator.services.question import WorkloadRef
from tests.integration.services.world import OLD, OTHER, PARTNER, SHOP, WEB, World, link

WEB_REF = WorkloadRef(namespace=SHOP, kind="Deployment", name="web")
OLD_REF = WorkloadRef(namespace=SHOP, kind="StatefulSet", name="old")
ME = developer()
TO_OLD = str(link_id(link(WEB, OLD, 9042)))
TO_PARTNER = str(link_id(link(WEB, PARTNER, 443)))


@dataclass(frozen=True)
class Rights:
    """Exactly these rights, in exactly these namespaces."""

    given: frozenset[tuple[Verb, Resource, str]]

    def may(self, name: str, groups: tuple[str, ...], verb: Verb, resource: Resource, namespace: str) -> bool:
        return (verb, resource, namespace) in self.given


def editor_of(namespace: str) -> Caller:
    rights = {(verb, resource, namespace) for verb in (Verb.GET, Verb.LIST) for resource in Resource}
    rights |= {(Verb.UPDATE, Resource.DECISIONS, namespace), (Verb.UPDATE, Resource.BASELINES, namespace)}
    return Caller(name=f"editor of {namespace}", authority=Rights(frozenset(rights)))


def exclude(world: World, row: str = TO_OLD, choice: Choice | None = Choice.EXCLUDE) -> None:
    world.review().deciding.decide_links(ME, WEB_REF, [row], choice, reason="obsolete", if_match=ANY)


def test_an_excluded_row_leaves_both_ends(world: World) -> None:
    exclude(world)
    web = {row.port: row for row in world.review().workload_links(ME, WEB_REF)}
    (old,) = world.review().workload_links(ME, OLD_REF)
    assert web[9042].proposal.reason == old.proposal.reason == "excluded"
    assert web[9042].decision is not None
    assert (web[9042].decision.author, web[9042].decision.reason) == ("developer", "obsolete")
    proposal = world.review().namespace_proposal(ME, SHOP)
    assert "9042" not in proposal.yaml
    assert proposal.certificate.holds


def test_undo_gives_the_state_before_byte_for_byte(world: World) -> None:
    before = repr(world.review().namespace_links(ME, SHOP)), world.review().namespace_proposal(ME, SHOP).yaml
    exclude(world)
    (said, *_) = world.review().deciding.of_workload(ME, WEB_REF).decisions
    world.review().deciding.undo(ME, said.record, reason="a mistake")
    after = repr(world.review().namespace_links(ME, SHOP)), world.review().namespace_proposal(ME, SHOP).yaml
    assert after == before


def test_an_undo_can_be_undone_and_nothing_twice(world: World) -> None:
    deciding = world.review().deciding
    exclude(world)
    said = deciding.of_workload(ME, WEB_REF).decisions[0]
    undone = deciding.undo(ME, said.record, reason="")
    assert undone.undoes == said.record
    with pytest.raises(ConflictError, match="already"):
        deciding.undo(ME, said.record, reason="")
    deciding.undo(ME, undone.record, reason="")
    assert "9042" not in world.review().namespace_proposal(ME, SHOP).yaml


def test_two_people_do_not_overwrite_each_other(world: World) -> None:
    deciding = world.review().deciding
    read = deciding.of_workload(ME, WEB_REF).etag
    deciding.decide_links(ME, WEB_REF, [TO_OLD], Choice.EXCLUDE, reason="", if_match=f'"{read}"')
    with pytest.raises(ConflictError, match="somebody has decided"):
        deciding.decide_direction(ME, WEB_REF, Direction.EGRESS, None, reason="", if_match=f'"{read}"')


def test_a_decision_elsewhere_does_not_disturb(world: World) -> None:
    deciding = world.review().deciding
    read = deciding.of_workload(ME, OLD_REF).etag
    deciding.decide_direction(ME, WEB_REF, Direction.INGRESS, GeneralRule.BLOCK_ALL, reason="", if_match=ANY)
    deciding.decide_direction(ME, OLD_REF, Direction.EGRESS, GeneralRule.BLOCK_ALL, reason="", if_match=f'"{read}"')


def test_a_decision_about_a_link_changes_the_tag_of_both_ends(world: World) -> None:
    deciding = world.review().deciding
    read = deciding.of_workload(ME, OLD_REF).etag
    exclude(world)
    assert deciding.of_workload(ME, OLD_REF).etag != read


def test_a_general_rule_replaces_the_rows_of_its_direction(world: World) -> None:
    deciding = world.review().deciding
    deciding.decide_direction(ME, WEB_REF, Direction.EGRESS, GeneralRule.ALLOW_NAMESPACE, reason="", if_match=ANY)
    text = world.review().workload_proposal(ME, WEB_REF).yaml
    assert "7000" not in text
    assert "kube-dns" in text
    assert deciding.of_workload(ME, WEB_REF).rules[1].rule == "allow-namespace"


def test_a_typed_cidr_stays_until_it_is_taken_back(world: World) -> None:
    deciding = world.review().deciding

    def typed(owner: Workload) -> TypedCIDR:
        cidr = ip_network("203.0.113.0/28")
        return TypedCIDR(workload=owner, direction=Direction.EGRESS, cidr=cidr, port=443)

    found = deciding.type_cidr(ME, WEB_REF, typed, Choice.INCLUDE, reason="proxy", if_match=ANY)
    assert found.cidrs[0].explained, "it is classified at once"
    assert [cidr.cidr for cidr in found.cidrs] == ["203.0.113.0/28"]
    assert "203.0.113.0/28" in world.review().workload_proposal(ME, WEB_REF).yaml
    found = deciding.type_cidr(ME, WEB_REF, typed, Choice.EXCLUDE, reason="", if_match=ANY)
    assert found.cidrs == []


def test_an_allowed_alias_names_and_includes_its_rows(world: World) -> None:
    deciding = world.review().deciding
    alias = Alias(name="partner-api", networks=(ip_network("203.0.113.10/32"),), allowed=True)
    deciding.set_alias(ME, alias, extend=False, reason="", if_match=ANY)
    row = next(row for row in world.review().workload_links(ME, WEB_REF) if row.port == 443)
    assert (row.peer.name, row.proposal.reason) == ("partner-api", "alias-allowed")
    deciding.set_alias(
        ME, replace(alias, networks=(ip_network("203.0.113.11/32"),)), extend=True, reason="", if_match=ANY
    )
    (found,) = deciding.aliases(ME).aliases
    assert found.networks == ["203.0.113.10/32", "203.0.113.11/32"]
    deciding.remove_alias(ME, "partner-api", reason="", if_match=ANY)
    with pytest.raises(NotFoundError):
        deciding.remove_alias(ME, "partner-api", reason="", if_match=ANY)


def test_cidrs_by_hand_win(world: World) -> None:
    said = ClusterCIDRs(pod_cidrs=(ip_network("203.0.113.0/24"),), service_cidrs=(ip_network("10.96.0.0/16"),))
    world.review().deciding.change_settings(ME, [said], reason="", if_match=ANY)
    row = next(row for row in world.review().workload_links(ME, WEB_REF) if row.port == 443)
    assert row.peer.address is not None
    assert row.peer.address.address_class == "internal"
    assert row.proposal.reason == "internal-unresolved"


def test_a_decision_whose_link_is_long_unseen_says_so(world: World) -> None:
    exclude(world)
    assert not world.review().deciding.of_workload(ME, WEB_REF).decisions[0].not_seen_for_long
    world.now = world.now.replace(year=2027)
    assert world.review().deciding.of_workload(ME, WEB_REF).decisions[0].not_seen_for_long


def test_every_decision_goes_to_the_audit_log(world: World, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="wattle.audit"):
        exclude(world)
    (line,) = [json.loads(record.getMessage()) for record in caplog.records if record.name == "wattle.audit"]
    assert (line["author"], line["reason"]) == ("developer", "obsolete")
    assert "shop/StatefulSet/old" in line["said"]


def test_an_editor_decides_the_rows_of_their_own_workloads_alone(world: World) -> None:
    deciding = world.review().deciding
    editor = editor_of(SHOP)
    deciding.decide_links(editor, WEB_REF, [TO_OLD], Choice.EXCLUDE, reason="", if_match=ANY)
    books = WorkloadRef(namespace=OTHER, kind="Deployment", name="books")
    forbidden = [
        lambda: deciding.decide_direction(editor, books, Direction.EGRESS, None, reason="", if_match=ANY),
        lambda: deciding.set_alias(
            editor, Alias(name="x", networks=(ip_network("203.0.113.1/32"),)), extend=False, reason="", if_match=ANY
        ),
        lambda: deciding.change_settings(editor, [ClusterCIDRs()], reason="", if_match=ANY),
        lambda: deciding.settings(editor),
    ]
    for act in forbidden:
        with pytest.raises(ForbiddenError):
            act()


def test_a_masked_row_cannot_be_decided_and_says_why(world: World) -> None:
    editor = editor_of(SHOP)
    masked = next(row for row in world.review().workload_links(editor, WEB_REF) if row.peer.masked)
    with pytest.raises(ForbiddenError, match="other end"):
        world.review().deciding.decide_links(editor, WEB_REF, [masked.id], None, reason="", if_match=ANY)


def test_what_is_no_row_of_the_workload_is_refused(world: World) -> None:
    deciding = world.review().deciding
    with pytest.raises(NotFoundError):
        deciding.decide_links(ME, OLD_REF, [TO_PARTNER], None, reason="", if_match=ANY)
    with pytest.raises(InputError, match="Service"):
        deciding.of_workload(ME, WorkloadRef(namespace=SHOP, kind="Service", name="web"))


def test_decisions_survive_a_new_log_over_the_same_database(world: World) -> None:
    exclude(world)
    again = type(world.decisions)(world.store.engine)
    assert again.state("default").decisions == world.decisions.state("default").decisions
    assert dict(again.state("default").decisions.links) == {link(WEB, OLD, 9042): Choice.EXCLUDE}
