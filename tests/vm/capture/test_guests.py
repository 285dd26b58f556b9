"""Debian's own kernels, where kprobes can be had: the kernel tests by that backend, and the demo end to end.

Both guests run side by side, each in one go; the tests read their verdicts. The stable one has cgroup v2 alone, the
backported one has the kubelet's groups in v1 beside it.
"""

import json
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.demo import LEFT_BY_DEMO, ROOT, run_demo
from tests.vm.guest import (
    Cgroups,
    GuestRun,
    GuestUnavailableError,
    compile_checkout,
    fetch,
    newest_package,
    run_in_guest,
)

STABLE = r"linux-image-6\.1\.0-\d+-amd64"
BACKPORT = r"linux-image-6\.12\.\d+\+deb12-amd64"
VERDICT = re.compile(r"^(PASSED|FAILED|ERROR|SKIPPED)\b.*$", re.MULTILINE)
LINKS = "WATTLE-VM-LINKS "
PATIENCE_SECONDS = 1500  # of guests beside other work; in quiet they need a third of it

# No plugin that these tests do not use: each is seconds of imports in an emulated machine.
KERNEL_TESTS = (
    "PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 WATTLE_TEST_BACKEND=kprobe WATTLE_TEST_DEADLINE_SECONDS=200 "
    ".venv/bin/python -m pytest -p pytest_timeout -p pytest_asyncio.plugin -q -rA --color=no --tb=short --timeout=560 "
    "-p no:cacheprovider tests/kernel/"
)
KILLED = f"{KERNEL_TESTS}process/test_agent.py -k 'no_agent_runs or other_settings'"
WITHOUT_LENGTHS = ".venv/bin/python -m agent --check --backend tracepoint"
DEMO = (
    "WATTLE_BACKEND=kprobe .venv/bin/python -m lab.demo build/slower.yaml --once --deadline 600 > /tmp/said 2>&1 "
    f"|| {{ tail -n 20 /tmp/said {LEFT_BY_DEMO}/*.log; false; }} "
    f"&& grep -h backend {LEFT_BY_DEMO}/agent.log && echo '{LINKS}'$(tr -d '\\n' < {LEFT_BY_DEMO}/links.json)"
)
GUESTS: Mapping[str, tuple[str, Cgroups, Mapping[str, str]]] = {
    "stable": (
        STABLE,
        "v2",
        {"capture": f"{KERNEL_TESTS}capture", "killed": KILLED, "without-lengths": WITHOUT_LENGTHS, "demo": DEMO},
    ),
    "backport": (BACKPORT, "hybrid", {"capture": f"{KERNEL_TESTS}capture", "killed": KILLED}),
}


Runs = Mapping[str, Future[GuestRun]]


def slower(scenario: Path) -> str:
    """The same pods and calls, fewer a minute: at full pace they leave an emulated machine no time for the rest."""
    head, *objects = yaml.safe_load_all(scenario.read_text())
    for run in head["lab"]["run"].values():
        if "every_seconds" in run:
            run["every_seconds"] *= 4
        for program in run["containers"].values():
            if "calls" in program:
                program["round_seconds"] = 8
    return yaml.safe_dump_all([head, *objects])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """Both guests, started together; who asks for one waits for it."""
    compiled = tmp_path_factory.mktemp("compiled")

    def start(name: str) -> GuestRun:
        pattern, cgroups, commands = GUESTS[name]
        kernel = fetch(newest_package(pattern))
        return run_in_guest(kernel, commands, compiled=compiled, cgroups=cgroups, timeout_seconds=PATIENCE_SECONDS)

    compile_checkout(compiled)
    (compiled / "build").mkdir()
    (compiled / "build/slower.yaml").write_text(slower(ROOT / "lab/shop.yaml"))
    with ThreadPoolExecutor(len(GUESTS)) as threads:
        yield {name: threads.submit(start, name) for name in GUESTS}


def run_of(runs: Runs, name: str) -> GuestRun:
    try:
        run = runs[name].result()
    except GuestUnavailableError as exc:
        pytest.skip(str(exc))
    assert f"WATTLE-VM-KERNEL={run.kernel}" in run.output, run.output[-3000:]
    return run


@pytest.mark.timeout(PATIENCE_SECONDS + 100)
@pytest.mark.parametrize(
    ("guest", "at_least", "skipped"),
    [
        pytest.param("stable", 54, 2, id="stable: every capture case"),  # cgroup v1
        pytest.param("backport", 56, 0, id="backport: every capture case"),
    ],
)
def test_kernel_tests_pass_through_kprobes(runs: Runs, guest: str, at_least: int, skipped: int) -> None:
    run = run_of(runs, guest)
    said = run.said("capture")
    verdicts = [match[0] for match in VERDICT.finditer(said)]
    unexpected = [line for line in verdicts if line.startswith(("FAILED", "ERROR"))]
    assert run.status("capture") == 0, "\n".join(unexpected) + "\n" + said[-6000:]
    assert not unexpected
    assert [line for line in verdicts if line.startswith("SKIPPED") and "cgroup v1" not in line] == []
    assert sum(line.startswith("SKIPPED") for line in verdicts) == skipped
    assert sum(line.startswith("PASSED") for line in verdicts) >= at_least


@pytest.mark.timeout(PATIENCE_SECONDS + 100)
@pytest.mark.parametrize("guest", list(GUESTS))
def test_programs_by_kprobes_outlive_a_killed_agent(runs: Runs, guest: str) -> None:
    """Probes by perf events become links, which are pinned as others are."""
    run = run_of(runs, guest)
    said = run.said("killed")
    assert run.status("killed") == 0, said[-6000:]
    assert sum(match[0].startswith("PASSED") for match in VERDICT.finditer(said)) == 2


@pytest.mark.timeout(PATIENCE_SECONDS + 100)
def test_kernel_without_length_tracepoints_counts_tcp_and_says_what_it_leaves_out(runs: Runs) -> None:
    """6.1 has no sock_send_length: the tracepoint backend there counts TCP, and UDP as uncounted."""
    run = run_of(runs, "stable")
    said = run.said("without-lengths")
    assert run.status("without-lengths") == 0, said[-3000:]
    assert "backend tracepoint: attached, self-test passed" in said
    assert "without: UDP is seen, not counted" in said


def spelled(links: list[dict[str, Any]]) -> list[str]:
    """What a link says, without what differs from run to run: counters, times, pods' random names.

    Nor which end saw it, and so whose processes: the server's view of a pod that lived two seconds comes late or not.
    """
    fields = ("direction", "protocol", "port", "services", "established", "confidence")
    ends = [
        {name: link[end].get(name) for name in ("kind", "namespace", "name", "address")}
        for link in links
        for end in ("workload", "peer")
    ]
    pairs = zip(ends[::2], ends[1::2], strict=True)
    rows = [{**{name: link[name] for name in fields}, "ends": pair} for link, pair in zip(links, pairs, strict=True)]
    return sorted(json.dumps(row, sort_keys=True) for row in rows)


@pytest.mark.timeout(PATIENCE_SECONDS + 100)
def test_demo_in_a_guest_finds_the_links_that_this_kernel_finds(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kprobes on Debian's kernel there, tracepoints on this machine's here."""
    monkeypatch.setenv("WATTLE_BACKEND", "tracepoint")
    here = run_demo("lab/shop.yaml")
    assert here.code == 0, here.text
    assert "tracepoint" in (LEFT_BY_DEMO / "agent.log").read_text()
    run = run_of(runs, "stable")
    said = run.said("demo")
    assert run.status("demo") == 0, said[-6000:]
    assert "backend kprobe: attached, self-test passed" in said
    (links,) = (line.removeprefix(LINKS) for line in said.splitlines() if line.startswith(LINKS))
    assert spelled(json.loads(links)) == spelled(here.links)
