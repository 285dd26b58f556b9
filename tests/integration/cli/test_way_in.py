"""The way in through a kubeconfig: a forwarded port, and a token that was made for Wattle alone."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from aggregator.services.authority.caller import Caller
from tests.integration.api.tokens import Tokens
from tests.integration.cli.apiserver import CLUSTER_TOKEN, WATTLE_TOKEN, _Server, api_server
from tests.integration.cli.conftest import Run, served
from tests.integration.services.world import World

TOKENS = "/api/v1/namespaces/shop/serviceaccounts/wattle/token"


class Remembering:
    """Which tokens were ever shown to Wattle."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    def caller(self, token: str) -> Caller:
        self.shown.append(token)
        return Tokens().caller(token)


@pytest.fixture
def tokens() -> Remembering:
    return Remembering()


@pytest.fixture
def aggregator(shop: World, tokens: Remembering) -> Iterator[str]:
    with served(shop, tokens) as address:
        yield address


def pod(name: str, port: int, *, ready: bool) -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "spec": {"containers": [{"ports": [{"name": "http", "containerPort": port}]}]},
        "status": {"conditions": [{"type": "Ready", "status": "True" if ready else "False"}]},
    }


def objects(address: str, **changes: Any) -> dict[str, Any]:
    port = urlsplit(address).port or 0
    service = {"spec": {"selector": {"app": "wattle"}, "ports": [{"port": 80, "targetPort": "http"}]}}
    return {
        "/api/v1/namespaces/wattle/services/wattle-http": service,
        "/api/v1/namespaces/wattle/pods": {"items": [pod("a", 9, ready=False), pod("b", port, ready=True)]},
        TOKENS: (201, {"status": {"token": WATTLE_TOKEN}}),
        **changes,
    }


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Callable[[_Server], Path]:
    def write(server: _Server) -> Path:
        path = tmp_path / "kubeconfig"
        context = {"cluster": "c", "user": "u", "namespace": "shop"}
        said = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "here",
            "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_address[1]}"}}],
            "users": [{"name": "u", "user": {"token": CLUSTER_TOKEN}}],
            "contexts": [{"name": "here", "context": context}],
        }
        path.write_text(yaml.safe_dump(said))
        return path

    return write


def test_without_an_address_a_port_is_forwarded_and_only_the_audience_token_is_shown(
    run: Run, aggregator: str, tokens: Remembering, kubeconfig: Callable[[_Server], Path]
) -> None:
    with api_server(objects(aggregator)) as server:
        code, out, err = run("--kubeconfig", kubeconfig(server), "links", "deploy/web", "-o", "json")
        assert (code, err) == (0, "")
        assert len(out) > 3000, "more than one frame's worth"
        assert any("/pods/b/portforward" in path for _, path, _ in server.asked), "the ready pod"
        (body,) = [body for method, _, body in server.asked if method == "POST"]
        assert body["spec"] == {"audiences": ["wattle"], "expirationSeconds": 600}
    assert set(tokens.shown) == {"", WATTLE_TOKEN}
    assert CLUSTER_TOKEN not in tokens.shown


def test_a_login_keeps_the_way_by_name(
    run: Run, aggregator: str, kubeconfig: Callable[[_Server], Path], tmp_path: Path
) -> None:
    with api_server(objects(aggregator)) as server:
        path = kubeconfig(server)
        code, out, err = run("--kubeconfig", path, "login")
        assert (code, err) == (0, "")
        assert "through the context here" in out
        kept = (tmp_path / "config" / "wattle" / "login.yaml").read_text()
        assert WATTLE_TOKEN not in kept.split()
        assert CLUSTER_TOKEN not in kept
        assert yaml.safe_load(kept)["service_account"] == "shop/wattle"
        assert run("workloads")[0] == 0
        assert run("login", "--show-token") == (0, f"{WATTLE_TOKEN}\n", "")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({TOKENS: (403, {"message": "forbidden"})}, "you may not ask for a token of the ServiceAccount shop/wattle"),
        ({TOKENS: (404, {"message": "gone"})}, "there is no ServiceAccount wattle in the namespace shop"),
        ({"/api/v1/namespaces/wattle/pods": {"items": []}}, "no pod behind the Service wattle/wattle-http is ready"),
        ({"/api/v1/namespaces/wattle/pods": {"items": [pod("b", 9, ready=True)]}}, "does not answer"),
    ],
)
def test_what_is_missing_on_the_way_is_said(
    run: Run,
    aggregator: str,
    kubeconfig: Callable[[_Server], Path],
    changes: dict[str, Any],
    sentence: str,
) -> None:
    with api_server(objects(aggregator, **changes)) as server:
        code, out, err = run("--kubeconfig", kubeconfig(server), "workloads")
    assert (code, out) == (2, "")
    assert sentence in err
    assert err.count("\n") == 1
    code, _, err = run("--kubeconfig", kubeconfig(server), "--context", "there", "workloads")
    assert code == 2
    assert "has no context there; it has here" in err
