"""`wattle verify` where pods have an address of each family: a pair agrees only where it agrees in both."""

import itertools
import json
from collections.abc import Mapping
from typing import Any

import pytest

from aggregator.model.verdict import Verdict
from aggregator.policy.profiles.known import GENERIC
from aggregator.services.verifying.verify import Asked, Tried, verify

GUARD = {
    "metadata": {"name": "guard", "namespace": "shop"},
    "spec": {
        "podSelector": {"matchLabels": {"app": "b"}},
        "policyTypes": ["Ingress"],
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "a"}}}]}],
    },
}


class FakeApi:
    """a, b and c, of which only a may call b; trial pods run at once, and clients say what `fate` says of a call."""

    def __init__(self, fate: Mapping[tuple[str, str, str], str], *, families: tuple[str, ...]) -> None:
        self.fate = fate  # by client, server and family; whatever is not there is as the policies want it
        self.families = families
        self.numbers = itertools.count(1)
        self.pods = {name: self._pod(name, name, "Running") for name in ("a", "b", "c")}

    def _pod(self, name: str, app: str, phase: str, message: str = "") -> dict[str, Any]:
        number = next(self.numbers)
        addresses = {"IPv4": f"10.0.0.{number}", "IPv6": f"fd00::{number}"}
        ips = [{"ip": addresses[family]} for family in self.families]
        status = {"phase": phase, "podIP": ips[0]["ip"], "podIPs": ips}
        if message:
            status["containerStatuses"] = [{"state": {"terminated": {"message": message}}}]
        meta = {"name": name, "namespace": "shop", "uid": name, "labels": {"app": app}}
        return {"metadata": meta, "spec": {"containers": [{"ports": [{"containerPort": 80}]}]}, "status": status}

    def get(self, path: str) -> dict[str, Any]:
        if path.endswith("/namespaces/shop"):
            return {"metadata": {"name": "shop"}}
        if path.endswith("/pods"):
            return {"items": [self.pods[name] for name in ("a", "b", "c")]}
        if path.endswith("/networkpolicies"):
            return {"items": [GUARD]}
        if path.endswith("/services"):
            return {"items": []}
        return self.pods[path.rpartition("/")[2]]

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        name = body["metadata"]["name"]
        if path.endswith("/pods"):
            client, app = name.rpartition("-")[2].startswith("c"), body["metadata"]["labels"]["app"]
            said = json.dumps(self._said(app, body)) if client else ""
            self.pods[name] = self._pod(name, app, "Succeeded" if client else "Running", said)
        return {"metadata": {"name": name, "uid": name}}

    def delete(self, path: str) -> dict[str, Any]:
        return {}

    def _said(self, client: str, body: Mapping[str, Any]) -> list[str]:
        """As the client's program: one word where each address met the same, else one for each."""
        servers = {ip["ip"]: pod["metadata"]["labels"]["app"] for pod in self.pods.values() for ip in _ips(pod)}
        said = []
        for addresses, _port in json.loads(body["spec"]["containers"][0]["command"][-1]):
            words: list[str] = []
            for family, address in zip(self.families, addresses, strict=True):
                server = servers[address]
                wanted = "refused" if (client, server) == ("c", "b") else "open"
                words.append(self.fate.get((client, server, family), wanted))
            said.append(words[0] if len(set(words)) == 1 else ",".join(words))
        return said


def _ips(pod: Mapping[str, Any]) -> list[dict[str, str]]:
    found: list[dict[str, str]] = pod["status"]["podIPs"]
    return found


BOTH = ("IPv4", "IPv6")


def tried(fate: Mapping[tuple[str, str, str], str], families: tuple[str, ...] = BOTH) -> dict[tuple[str, str], Tried]:
    asked = Asked(namespaces=("shop",), limit=20, image="none", profile=GENERIC, settle_seconds=0, poll_seconds=0)
    found = verify(FakeApi(fate, families=families), asked).tried
    return {(each.pair.src.name, each.pair.dst.name): each for each in found}


@pytest.mark.parametrize("families", [("IPv4",), ("IPv6",), BOTH])
def test_alike_in_every_family_it_is_said_once(families: tuple[str, ...]) -> None:
    found = tried({}, families)
    assert all(each.agrees and each.over == "" for each in found.values())
    assert found["c", "b"].outcome == "refused"


def test_a_denied_pair_that_is_open_in_one_family_differs_over_it() -> None:
    """An enforcer of IPv4 alone leaves IPv6 open: that is no agreement."""
    found = tried({("c", "b", "IPv6"): "open"})
    assert [pair for pair, each in found.items() if not each.agrees] == [("c", "b")]
    differing = found["c", "b"]
    assert (differing.pair.expected, differing.outcome, differing.over) == (Verdict.DENIED, "open", "IPv6")


def test_an_allowed_pair_that_is_shut_in_one_family_differs_over_it() -> None:
    differing = tried({("a", "c", "IPv6"): "no-answer"})["a", "c"]
    assert (differing.agrees, differing.outcome, differing.over) == (False, "no-answer", "IPv6")


def test_shut_in_two_ways_agrees() -> None:
    found = tried({("c", "b", "IPv6"): "no-answer"})["c", "b"]
    assert (found.agrees, found.over) == (True, "")


def test_what_was_not_tried_is_said_of_no_family() -> None:
    found = tried({("c", "b", "IPv4"): "", ("c", "b", "IPv6"): ""})["c", "b"]
    assert (found.agrees, found.outcome, found.over) == (None, "", "")
