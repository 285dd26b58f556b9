"""The kernel tests again, on Debian's own kernels, where kprobes can be had: the same cases, the other backend."""

import re

import pytest

from tests.vm.guest import GuestKernel, GuestRun, GuestUnavailableError, fetch, newest_package, run_in_guest

STABLE = r"linux-image-6\.1\.0-\d+-amd64"
BACKPORT = r"linux-image-6\.12\.\d+\+deb12-amd64"
VERDICT = re.compile(r"^(PASSED|FAILED|ERROR|SKIPPED)\b.*$", re.MULTILINE)


def kernel(pattern: str) -> GuestKernel:
    try:
        return fetch(newest_package(pattern))
    except GuestUnavailableError as exc:
        pytest.skip(str(exc))


def run_kernel_tests(kernel: GuestKernel, what: str, *, backend: str, timeout_seconds: int) -> GuestRun:
    command = (
        f"WATTLE_TEST_BACKEND={backend} WATTLE_TEST_DEADLINE_SECONDS=200 .venv/bin/python -m pytest -q -rA --color=no "
        f"--tb=short --timeout=560 -p no:cacheprovider {what}"
    )
    run = run_in_guest(kernel, command, timeout_seconds=timeout_seconds)
    assert f"WATTLE-VM-KERNEL={kernel.release}" in run.output
    return run


def expect_green(run: GuestRun, *, at_least: int) -> None:
    verdicts = [match[0] for match in VERDICT.finditer(run.output)]
    passed = [line for line in verdicts if line.startswith("PASSED")]
    unexpected = [line for line in verdicts if not line.startswith("PASSED") and "cgroup v1" not in line]
    assert not unexpected, "\n".join(unexpected) + "\n" + run.output[-6000:]
    assert run.status == 0, run.output[-6000:]
    assert len(passed) >= at_least, f"only {len(passed)} tests ran in the guest"


@pytest.mark.timeout(1600)
def test_kprobe_backend_on_the_stable_kernel_passes_every_case() -> None:
    run = run_kernel_tests(
        kernel(STABLE),
        "tests/kernel/capture -k 'not thread_names'",  # each of tests/kernel/process starts agents: a minute here
        backend="kprobe",
        timeout_seconds=1500,
    )
    expect_green(run, at_least=43)


@pytest.mark.timeout(900)
def test_kprobe_backend_on_the_backported_kernel_passes_the_directions() -> None:
    """Bit-fields, argument counts and offsets differ between the two; TCP and UDP show it."""
    run = run_kernel_tests(
        kernel(BACKPORT),
        "tests/kernel/capture/test_tcp.py tests/kernel/capture/test_udp.py "
        "-k 'counted_once or answer_is_not or told_apart or blocked_acceptors'",
        backend="kprobe",
        timeout_seconds=800,
    )
    expect_green(run, at_least=15)


@pytest.mark.timeout(600)
def test_kernel_without_length_tracepoints_counts_tcp_and_says_what_it_leaves_out() -> None:
    """6.1 has no sock_send_length: the tracepoint backend there counts TCP, and UDP as uncounted."""
    run = run_in_guest(kernel(STABLE), ".venv/bin/python -m agent --check --backend tracepoint", timeout_seconds=560)
    assert run.status == 0, run.output[-3000:]
    assert "backend tracepoint: attached, self-test passed" in run.output
    assert "without: UDP is seen, not counted" in run.output
