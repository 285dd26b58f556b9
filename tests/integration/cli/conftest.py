"""A served aggregator, without Kubernetes: the tokens of the tests, or development mode."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvicorn

from aggregator.api.asking import Authenticator
from aggregator.api.rest import Development, create_api
from tests.integration.api.tokens import UNLIMITED, Tokens
from tests.integration.services.world import World, everything


@contextlib.contextmanager
def served(world: World, callers: Authenticator) -> Iterator[str]:
    """The address of a REST door."""
    server = uvicorn.Server(
        uvicorn.Config(create_api(world.review(), callers, rate=UNLIMITED), log_level="warning", lifespan="off")
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(10)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[World]:
    world = everything(tmp_path)
    yield world
    world.close()


@pytest.fixture
def development(shop: World) -> Iterator[str]:
    with served(shop, Development()) as address:
        yield address


@pytest.fixture
def guarded(shop: World) -> Iterator[str]:
    """Asks for a token: admin, viewer or editor."""
    with served(shop, Tokens()) as address:
        yield address


@pytest.fixture(autouse=True)
def _nothing_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No kubeconfig and no login of whoever runs the tests."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr("aggregator.cluster.reach.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "no-kubeconfig"))


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Exit code, standard output, standard error."""
    from aggregator.cli.main import run as wattle

    def make(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = wattle([str(argument) for argument in arguments])
        told = capsys.readouterr()
        return code, told.out, told.err

    return make
