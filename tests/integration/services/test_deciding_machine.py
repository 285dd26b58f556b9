"""Any sequence of decisions and undos: an undo gives the state before, byte for byte, and a model agrees throughout."""

import tempfile
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from aggregator.model.decision import (
    Alias,
    AliasDecision,
    BaselineDecision,
    Choice,
    ClusterCIDRs,
    Decision,
    Decisions,
    DefaultDeny,
    DirectionDecision,
    GeneralRule,
    LabelDecision,
    LabelLists,
    LinkDecision,
    PolicyRemoval,
    PortRangeConsent,
    ProcessNames,
    TypedCIDR,
    TypedCIDRDecision,
)
from aggregator.model.protocol import Direction, Protocol
from aggregator.store.decision_codec import decode, encode
from aggregator.store.decisions import DecisionEntry, DecisionLog, Undo
from aggregator.store.migrate import migrate
from aggregator.store.store import open_store
from tests.integration.services.world import DB, NOW, OLD, PARTNER, WEB, link

LINKS = [link(WEB, DB, 5432), link(WEB, OLD, 9042), link(WEB, PARTNER, 443), link(WEB, DB, 53, Protocol.UDP)]
WORKLOADS = [WEB, DB, OLD]
NETWORKS = [ip_network(text) for text in ("203.0.113.0/24", "203.0.113.10/32", "2001:db8::/48")]
CHOICES = st.sampled_from(Choice)
KEYS = st.lists(st.sampled_from(["app", "tier", "app.kubernetes.io/*"]), max_size=2).map(tuple)
SOME = st.lists(st.sampled_from(NETWORKS), max_size=2, unique=True).map(tuple)

ANY_DECISION: st.SearchStrategy[Decision] = st.one_of(
    st.builds(LinkDecision, link=st.sampled_from(LINKS), choice=st.none() | CHOICES),
    st.builds(
        DirectionDecision,
        workload=st.sampled_from(WORKLOADS),
        direction=st.sampled_from(Direction),
        rule=st.none() | st.sampled_from(GeneralRule),
    ),
    st.builds(
        TypedCIDRDecision,
        cidr=st.builds(
            TypedCIDR,
            workload=st.sampled_from(WORKLOADS),
            direction=st.sampled_from(Direction),
            cidr=st.sampled_from(NETWORKS),
            protocol=st.none() | st.sampled_from(Protocol),
            port=st.none() | st.integers(1, 65535),
        ),
        choice=CHOICES,
    ),
    st.sampled_from(["proxy", "partner"]).flatmap(
        lambda name: st.builds(
            AliasDecision,
            name=st.just(name),
            alias=st.none() | st.builds(Alias, name=st.just(name), networks=SOME, allowed=st.booleans()),
        )
    ),
    st.builds(LabelDecision, workload_labels=st.builds(LabelLists, include=KEYS, exclude=KEYS)),
    st.builds(ClusterCIDRs, pod_cidrs=SOME, service_cidrs=SOME, node_cidrs=SOME),
    st.builds(DefaultDeny, namespace=st.just("shop"), direction=st.sampled_from(Direction), choice=CHOICES),
    st.builds(
        PortRangeConsent,
        src=st.sampled_from(WORKLOADS),
        dst=st.sampled_from(WORKLOADS),
        protocol=st.sampled_from(Protocol),
        first=st.just(30000),
        last=st.just(30100),
        choice=CHOICES,
    ),
    st.builds(PolicyRemoval, namespace=st.just("shop"), name=st.just("old"), choice=CHOICES),
    st.builds(
        BaselineDecision,
        workload=st.sampled_from(WORKLOADS),
        links=st.none() | st.lists(st.sampled_from(LINKS), unique=True).map(tuple),
    ),
    st.builds(ProcessNames, names=st.sampled_from([(), ("kube-apiserver",)])),
)


class Deciding(RuleBasedStateMachine):
    """The log on a real database against a list in memory."""

    made = Bundle("made")
    undone = Bundle("undone")

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        url = f"sqlite:///{Path(self.directory.name) / 'wattle.db'}"
        migrate(url)
        self.store = open_store(url)
        self.log = DecisionLog(self.store.engine)
        self.model: list[tuple[int, Decision, bool]] = []  # version, decision, in force
        self.clock = NOW

    def teardown(self) -> None:
        self.store.close()
        self.directory.cleanup()

    def say(self, said: Decision | Undo) -> int:
        self.clock += timedelta(seconds=1)
        entry = DecisionEntry(said=said, author="dana", at=self.clock, reason="because")
        return self.log.append("default", lambda _state: [entry]).version

    def bytes_now(self) -> bytes:
        return repr(DecisionLog(self.store.engine).state("default").decisions).encode()

    def set_in_force(self, version: int, *, holds: bool) -> None:
        self.model = [(v, d, holds if v == version else held) for v, d, held in self.model]

    @rule(target=made, decision=ANY_DECISION)
    def decide(self, decision: Decision) -> int:
        version = self.say(decision)
        self.model.append((version, decision, True))
        return version

    @rule(decision=ANY_DECISION)
    def decide_and_undo_at_once(self, decision: Decision) -> None:
        before = self.bytes_now()
        version = self.say(decision)
        self.model.append((version, decision, False))
        self.say(Undo(version=version))
        assert self.bytes_now() == before

    @rule(target=undone, version=consumes(made))
    def undo(self, version: int) -> tuple[int, int]:
        undo = self.say(Undo(version=version))
        self.set_in_force(version, holds=False)
        return (version, undo)

    @rule(target=made, pair=consumes(undone))
    def redo(self, pair: tuple[int, int]) -> int:
        version, undo = pair
        self.say(Undo(version=undo))
        self.set_in_force(version, holds=True)
        return version

    @rule()
    def nothing_is_written_when_it_is_refused(self) -> None:
        before = self.log.state("default").version

        def refuse(_state: object) -> list[DecisionEntry]:
            raise PermissionError

        with pytest.raises(PermissionError):
            self.log.append("default", refuse)
        assert self.log.state("default").version == before

    @invariant()
    def the_model_agrees(self) -> None:
        expected = Decisions.of(decision for _, decision, held in self.model if held)
        assert self.bytes_now() == repr(expected).encode()


TestDeciding = Deciding.TestCase
TestDeciding.settings = settings(
    max_examples=15, stateful_step_count=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


def test_every_kind_comes_back_from_its_text() -> None:

    @given(ANY_DECISION)
    @settings(max_examples=300, deadline=None, derandomize=True, database=None)
    def comes_back(decision: Decision) -> None:
        text = encode(decision)
        assert decode(text) == decision
        assert encode(decode(text)) == text

    comes_back()
