"""The page claims what the certificate claims, and no more."""

from dataclasses import replace

import pytest

from aggregator.services.policies.policy_views import BreachView, CertificateView, ProposalView
from aggregator.services.question import WorkloadRef
from aggregator.web.rendering import environment

HOLDS = CertificateView(
    holds=True,
    profile="generic",
    digest="0" * 64,
    included=3,
    denied=1,
    undecided=[],
    breaches=[],
    opened=[],
    evaluators=["compiled", "plain"],
    connections=40,
    disagreements=[],
)
PROPOSAL = ProposalView(
    scope="shop/Deployment/web",
    span="all",
    yaml='kind: "NetworkPolicy"\n',
    digest="0" * 64,
    policies=["shop/wattle-web"],
    overwrites=[],
    included=[],
    left_out=[],
    synthesised=[],
    widenings=[],
    open_directions=[],
    findings=[],
    declared=[],
    certificate=HOLDS,
    masked_links=0,
    decisions_version=0,
)
BREACH = BreachView(
    setting="together",
    link="web -> db TCP/5432",
    id="1",
    expected="allowed",
    found="denied",
    example="web-1",
    because="another policy isolates db",
)


def words(proposal: ProposalView) -> str:
    ref = WorkloadRef(namespace="shop", kind="Deployment", name="web")
    template = environment().get_template("policy.html")
    page = template.render(proposal=proposal, ref=ref, path="/ui", query=lambda: "")
    return " ".join(page.split())


def test_what_holds_is_claimed() -> None:
    said = words(PROPOSAL)
    assert "Allows all 3 included links" in said
    assert "Denies the 1 link left out" in said
    assert "Opens nothing else" in said
    assert "Not proved" not in said


@pytest.mark.parametrize(
    "failed",
    [
        replace(HOLDS, holds=False, breaches=[BREACH]),
        replace(HOLDS, holds=False, disagreements=["web -> db: compiled allows, plain denies"]),
    ],
)
def test_a_failed_proof_claims_nothing(failed: CertificateView) -> None:
    said = words(replace(PROPOSAL, certificate=failed))
    assert "Not proved" in said
    assert "The proof failed" in said
    for claim in ("Allows all", "Denies the", "Opens nothing else"):
        assert claim not in said


def test_a_breach_and_a_disagreement_are_shown() -> None:
    assert "Another policy isolates db." in words(
        replace(PROPOSAL, certificate=replace(HOLDS, holds=False, breaches=[BREACH]))
    )
    assert "compiled allows" in words(
        replace(PROPOSAL, certificate=replace(HOLDS, holds=False, disagreements=["compiled allows"]))
    )


def test_without_a_policy_nothing_is_proved() -> None:
    said = words(replace(PROPOSAL, policies=[], yaml=""))
    assert "nothing to prove" in said
    assert "Allows all" not in said
