"""The agent's image as the DaemonSet runs it: uid 0, four capabilities, read-only root; with one fewer; with all."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.capabilities import NEEDED
from tests.chart.rendering import container_of, render
from tests.images.conftest import Image, Pod

CHECK = ("-m", "agent", "--check")


def pod(image: Image, capabilities: tuple[str, ...]) -> Pod:
    """Mounts as in the chart, with this machine in the node's place."""
    mounts: list[tuple[str, str, bool]] = [("/sys", "/sys", False)]
    for kind, path in (("bpf", "/sys/fs/bpf"), ("tracefs", "/sys/kernel/tracing")):
        if _mounted(path) != kind:
            pytest.skip(f"this machine has no {kind} on {path}")
        mounts.append((path, path, True))
    mounts.append(("tmpfs", "/var/lib", True))
    environment = {
        "WATTLE_NODE": "node",
        "WATTLE_SERVER": "127.0.0.1:1",
        "WATTLE_PLAINTEXT": "true",
        "WATTLE_POD_LOGS": "/var/log",
    }
    return Pod(image=image, uid=0, capabilities=capabilities, mounts=tuple(mounts), environment=environment)


def _mounted(path: str) -> str:
    for line in Path("/proc/mounts").read_text().splitlines():
        _, target, kind, *_ = line.split()
        if target == path:
            return kind
    return ""


def checked(image: Image, capabilities: list[str]) -> "subprocess.CompletedProcess[str]":
    return pod(image, tuple(capabilities)).run(image.config["Entrypoint"][0], *CHECK)


def given(values: dict[str, Any] | None = None) -> list[str]:
    found: list[str] = container_of(render(values), "agent")["securityContext"]["capabilities"]["add"]
    return found


@pytest.fixture(scope="module", autouse=True)
def _bpf_is_mounted() -> Iterator[None]:
    """As the kubelet's host paths ask for; what was not mounted before is not afterwards."""
    made = []
    for kind, path in (("bpf", "/sys/fs/bpf"), ("tracefs", "/sys/kernel/tracing")):
        if _mounted(path) != kind and not subprocess.run(["mount", "-t", kind, kind, path], check=False).returncode:
            made.append(path)
    yield
    for path in made:
        subprocess.run(["umount", path], check=False)


def test_the_charts_capabilities_and_nothing_more_are_enough(built: dict[str, Image]) -> None:
    done = checked(built["agent"], given())
    assert done.returncode == 0, done.stderr
    assert "attached, self-test passed" in done.stdout
    assert "is missing" not in done.stdout + done.stderr


@pytest.mark.parametrize("taken", NEEDED, ids=lambda each: each.name)
def test_one_fewer_is_missed_by_name(built: dict[str, Image], taken) -> None:
    done = checked(built["agent"], [name for name in given() if f"CAP_{name}" != taken.name])
    said = done.stdout + done.stderr
    assert f"{taken.name} is missing: {taken.without}" in said, said
    assert [each.name for each in NEEDED if f"{each.name} is missing" in said] == [taken.name]
    assert done.returncode == (3 if taken.required else 0), said


def test_privileged_is_enough_too(built: dict[str, Image]) -> None:
    done = checked(built["agent"], ["all"])
    assert done.returncode == 0, done.stderr
    assert "is missing" not in done.stdout + done.stderr


def test_the_image_has_no_compiler_driver_and_nothing_of_the_aggregator(built: dict[str, Image]) -> None:
    root = built["agent"].root
    for program in ("gcc", "cc", "clang", "make", "git", "pip"):
        assert not list(root.glob(f"usr/bin/{program}*")), program
    assert sorted(path.name for path in (root / "opt/wattle").iterdir()) == ["agent", "wattle"]
