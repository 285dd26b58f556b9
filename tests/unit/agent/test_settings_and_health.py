"""Settings: environment below, flags above, all faults at once. Health: a sentence where something is wrong."""

import asyncio
import dataclasses
from pathlib import Path

import pytest

from agent import metrics
from agent.config import AgentConfig, read_config
from agent.errors import ConfigError
from agent.flow import OUTCOME_OF_ERROR, Outcome, address_bytes, address_text, process_text
from agent.health import HealthServer, ask


def test_flags_win_over_the_environment() -> None:
    environment = {"WATTLE_CLUSTER": "from-environment", "WATTLE_MESH_PORTS": "1,2", "WATTLE_PLAINTEXT": "true"}
    assert read_config([], environment)[0].cluster == "from-environment"
    config, mode = read_config(["--cluster", "from-flag", "--once"], environment)
    assert (config.cluster, config.mesh_ports, config.plaintext) == ("from-flag", (1, 2), True)
    assert (mode.once, mode.check, mode.health) == (True, False, False)


def test_empty_environment_is_the_default() -> None:
    assert read_config([], {"WATTLE_CLUSTER": ""})[0] == AgentConfig()


def test_every_fault_is_named_at_once() -> None:
    wrong = ["--cluster", "Not A Label", "--flow-entries", "many", "--server", "nowhere", "--backend", "magic"]
    with pytest.raises(ConfigError) as refusal:
        read_config(wrong, {"WATTLE_PLAINTEXT": "perhaps", "WATTLE_DRAIN_INTERVAL_SECONDS": "0"})
    named = ("cluster", "flow_entries", "server", "backend", "plaintext", "drain_interval_seconds")
    assert all(name in str(refusal.value) for name in named)


def test_a_certificate_needs_its_key() -> None:
    with pytest.raises(ConfigError, match="go together"):
        read_config(["--certificate-file", "/x"], {})


def test_every_setting_says_what_it_is() -> None:
    assert all(field.metadata["description"].endswith(".") for field in dataclasses.fields(AgentConfig))


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (0, Outcome.ESTABLISHED),
        (111, Outcome.REFUSED),
        (110, Outcome.TIMED_OUT),
        (113, Outcome.UNREACHABLE),
        (101, Outcome.UNREACHABLE),
        (13, Outcome.UNREACHABLE),
        (4095, Outcome.ABORTED),
        (103, Outcome.ABORTED),
    ],
)
def test_outcomes(error: int, outcome: Outcome) -> None:
    """Rows 4 and 5 of the pitfalls: an attempt is no flow, and silence is called no answer."""
    assert OUTCOME_OF_ERROR[error] == outcome


@pytest.mark.parametrize("text", ["10.0.0.1", "fd00::1", "0.0.0.0", "::"])
def test_addresses_are_written_as_people_do(text: str) -> None:
    assert address_text(address_bytes(text)) == text


def test_process_names_end_at_the_first_nul() -> None:
    """Kernel 6.1 leaves garbage behind it."""
    assert process_text(b"nginx\0garbage\0\0\0") == "nginx"


async def test_health_pages() -> None:
    complaints = {"alive": "", "ready": "no batch has been committed yet"}
    refreshed: list[bool] = []
    server = HealthServer(
        alive=lambda: complaints["alive"], ready=lambda: complaints["ready"], refresh=lambda: refreshed.append(True)
    )
    port = await server.start("127.0.0.1:0")
    listen = f"127.0.0.1:{port}"
    try:
        assert await asyncio.to_thread(ask, listen) == "no batch has been committed yet"
        complaints["ready"] = ""
        assert await asyncio.to_thread(ask, listen) == ""
        complaints["alive"] = "no drain for 60 s"
        assert await asyncio.to_thread(ask, listen) == "no drain for 60 s"
        assert b"503" in await fetch(port, "GET /livez")
        assert b"wattle_agent_drain_alive_seconds" in await fetch(port, "GET /metrics")
        assert b"404" in await fetch(port, "GET /secrets")
        assert b"405" in await fetch(port, "POST /metrics")
        assert await fetch(port, "nonsense") == b""
    finally:
        await server.stop()
    assert refreshed == [True]
    assert metrics.DRAIN_ALIVE._type == "gauge"
    assert "no agent answers" in await asyncio.to_thread(ask, listen)


async def fetch(port: int, request: str) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"{request} HTTP/1.1\r\n\r\n".encode() if " " in request else request.encode() + b"\r\n\r\n")
    await writer.drain()
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


def test_settings_are_read_nowhere_else() -> None:
    agent = Path(__file__).resolve().parents[3] / "agent"
    readers = {
        path.name for path in agent.rglob("*.py") if "os.environ" in path.read_text() and path.name != "config.py"
    }
    assert readers <= {"loader.py"}  # passes the environment on to its child
