"""Which ways of knowing agents go together with what."""

from typing import Any

import pytest

from aggregator.config import settings_from_environment
from aggregator.errors import ConfigurationError

CLUSTER = {
    "WATTLE_SOURCE": "kubernetes",
    "WATTLE_TLS_CERTIFICATE_FILE": "/tls/tls.crt",
    "WATTLE_TLS_KEY_FILE": "/tls/tls.key",
    "WATTLE_AGENT_SERVICE_ACCOUNT": "wattle/wattle-agent",
}


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [name for name in os.environ if name.startswith("WATTLE_")]:
        monkeypatch.delenv(name)


def read(monkeypatch: pytest.MonkeyPatch, **changes: str | None) -> Any:
    for name, value in (CLUSTER | changes).items():
        if value is not None:
            monkeypatch.setenv(name, value)
    return settings_from_environment()


def test_agents_are_known_by_their_pods_token(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read(monkeypatch).agent_service_account == "wattle/wattle-agent"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"WATTLE_AGENT_SERVICE_ACCOUNT": None}, "set one of the three"),
        ({"WATTLE_AGENT_TOKEN_FILE": "/tokens"}, "set one of the three"),
        ({"WATTLE_TLS_CLIENT_CA_FILE": "/ca.crt"}, "set one of the three"),
        ({"WATTLE_SOURCE": "manifests", "WATTLE_MANIFESTS": "/m"}, "needs WATTLE_SOURCE=kubernetes"),
        ({"WATTLE_AGENT_SERVICE_ACCOUNT": "wattle-agent"}, "WATTLE_AGENT_SERVICE_ACCOUNT"),
    ],
)
def test_a_contradiction_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, str | None], sentence: str
) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        read(monkeypatch, **changes)
