"""Each check of the aggregator's doctor, well and ill, with what it says to do."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from aggregator.cluster.kinds import WATCHED
from aggregator.cluster.transport import ApiError
from aggregator.cluster.view import ClusterView
from aggregator.doctor.agents import check_agents
from aggregator.doctor.certificates import check_certificate
from aggregator.doctor.database import check_database, judge
from aggregator.doctor.finding import Finding, State
from aggregator.doctor.network import judge as judge_network
from aggregator.doctor.rights import check_api
from aggregator.store import migrate
from aggregator.store.agents import AgentStatus
from aggregator.store.condition import DatabaseCondition
from tests.certificates import Authority

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)


def texts(findings: Iterator[Finding]) -> list[str]:
    return [f"{found.state}: {found.text}" for found in findings]


# ---- the database ---------------------------------------------------------------------------------------------------


def test_a_database_of_this_version_is_well(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'wattle.db'}"
    [before] = check_database(url)
    assert (before.state, "(none)" in before.text) == (State.ILL, True)
    assert "--migrate" in before.way_out
    migrate(url)
    [after] = check_database(url)
    assert after.state is State.WELL
    assert after.text.startswith("SQLite 3.")


def condition(**values: Any) -> DatabaseCondition:
    given = {"name": "PostgreSQL 15.4", "revision": "7", "newest": "7", "known": True, "ahead_seconds": 0.0}
    return DatabaseCondition(**given | values)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, ["well: PostgreSQL 15.4, schema 7"]),
        ({"revision": "6"}, ["ill: PostgreSQL 15.4 has the schema 6, this version wants 7"]),
        (
            {"revision": "9", "known": False},
            ["ill: PostgreSQL 15.4 has the schema 9, which this version does not know"],
        ),
        ({"ahead_seconds": -90.2}, ["well: PostgreSQL 15.4, schema 7", "poor: -90 s from this one's"]),
    ],
)
def test_schemas_and_clocks(values: dict[str, Any], expected: list[str]) -> None:
    assert texts(judge(condition(**values))) == expected


def test_a_database_that_is_away_is_said_without_its_password() -> None:
    [found] = check_database("postgresql+psycopg://u:secret@127.0.0.1:1/d")
    assert found.state is State.ILL
    assert "secret" not in found.text + found.way_out
    [found] = check_database("mysql://h/d")
    assert "WATTLE_DATABASE_URL" in found.way_out


# ---- the API server -------------------------------------------------------------------------------------------------


class Api:
    """Grants everything but what it is told not to."""

    def __init__(self, *refused: tuple[str, str], away: bool = False) -> None:
        self._refused = refused
        self._away = away

    def get(self, path: str) -> Any:
        if self._away:
            raise ApiError(f"GET {path}", 0, "no answer")
        return {"gitVersion": "v1.36.2"}

    def post(self, path: str, body: dict[str, Any]) -> Any:
        del path
        asked = body["spec"]["resourceAttributes"]
        if asked["resource"] == "configmaps":
            assert asked["namespace"] == "kube-system"
            assert asked["name"]
        return {"status": {"allowed": (asked["verb"], asked["resource"]) not in self._refused}}


def test_every_right_is_there() -> None:
    assert texts(check_api(Api())) == [
        "well: Kubernetes v1.36.2",
        f"well: may read all {len(WATCHED)} kinds, and ask who somebody is",
    ]


def test_a_right_that_everything_needs_is_worse_than_one_that_something_needs() -> None:
    assert texts(check_api(Api(("watch", "pods"), ("list", "ingresses"), ("watch", "ingresses"))))[1:] == [
        "ill: may not watch pods: nothing works without",
        "poor: may not list and watch ingresses of networking.k8s.io: Ingress is not in the view",
    ]
    [_, found] = check_api(Api(("create", "tokenreviews")))
    assert found.state is State.ILL
    assert "rbac.create=true" in found.way_out


def test_no_api_server() -> None:
    [found] = check_api(Api(away=True))
    assert found.state is State.ILL


# ---- the network plug-in --------------------------------------------------------------------------------------------


def view_of(name: str, image: str) -> ClusterView:
    view = ClusterView("c")
    container = {"name": name, "image": image}
    raw = {
        "metadata": {"namespace": "kube-system", "name": name, "uid": name},
        "spec": {"template": {"spec": {"containers": [container]}}},
    }
    view.apply("DaemonSet", raw, at=0.0)
    return view


def test_a_plug_in_that_enforces_nothing_is_ill() -> None:
    [found] = judge_network(view_of("kube-flannel-ds", "docker.io/flannel/flannel:v0.26.0"), "generic")
    assert found.state is State.ILL
    assert found.way_out


def test_verdicts_are_made_under_the_plug_ins_own_profile() -> None:
    view = view_of("calico-node", "docker.io/calico/node:v3.28.0")
    [other] = judge_network(view, "generic")
    assert other.state is State.POOR
    assert "WATTLE_PROFILE=calico" in other.way_out
    [same] = judge_network(view, "calico")
    assert same.state is State.WELL


# ---- agents ---------------------------------------------------------------------------------------------------------


def agent(name: str, **values: Any) -> AgentStatus:
    given: dict[str, Any] = {
        "agent_id": name,
        "version": "1",
        "kernel": "6.1",
        "backend": "kprobe",
        "refused": (),
        "cidr_hints": (),
        "map_fill_permille": 10,
        "spool_bytes": 0,
        "spool_batches": 0,
        "clock_skew_ms": 3,
        "last_report": NOW - timedelta(seconds=20),
        "last_batch": NOW,
        "epoch": 1,
        "committed_seq": 1,
        "flow_records": 1,
        "clamped_batches": 0,
        "rejected_batches": 0,
        "losses": {},
        "gap_batches": 0,
        "gap_flow_records": 0,
    }
    return AgentStatus(**given | values)


@pytest.mark.parametrize(
    ("agents", "nodes", "expected"),
    [
        ([], ["a"], ["ill: none has ever delivered"]),
        ([agent("a"), agent("b")], ["a", "b"], ["well: 2 deliver"]),
        ([agent("a")], None, ["well: 1 deliver"]),
        ([agent("a")], ["a", "b"], ["poor: no agent has ever delivered from b", "well: 1 deliver"]),
        (
            [agent("a", last_report=NOW - timedelta(minutes=4)), agent("b", last_report=None)],
            ["a", "b"],
            ["poor: nothing for three minutes from a, b"],
        ),
        ([agent("a"), agent("gone", last_report=None)], ["a"], ["well: 1 deliver"]),
        ([agent("a", clock_skew_ms=-6_000)], ["a"], ["poor: more than 5 s from this one's: a", "well: 1 deliver"]),
        ([agent("a", map_fill_permille=900)], ["a"], ["poor: more than 80 % full: a", "well: 1 deliver"]),
        (
            [agent("a", version="0")],
            ["a"],
            ["poor: agents of 0 deliver to an aggregator of 1", "well: 1 deliver"],
        ),
    ],
)
def test_agents(agents: list[AgentStatus], nodes: list[str] | None, expected: list[str]) -> None:
    assert texts(check_agents(agents, nodes, version="1", now=NOW)) == expected


def test_many_names_are_not_all_said() -> None:
    [found, _] = check_agents([agent("a")], [f"n{number}" for number in range(9)] + ["a"], version="1", now=NOW)
    assert found.text.endswith("n0, n1, n2, n3, n4 and 4 more")


# ---- certificates ---------------------------------------------------------------------------------------------------


def test_certificates(tmp_path: Path) -> None:
    files = Authority(tmp_path).issue("server", "DNS:localhost")
    now = datetime.now(tz=UTC)
    assert check_certificate(*files, now).state is State.POOR, "the tests' authority issues for two days"
    assert check_certificate(*files, now - timedelta(days=30)).state is State.WELL
    assert check_certificate(files[0], tmp_path / "none", now).state is State.ILL
