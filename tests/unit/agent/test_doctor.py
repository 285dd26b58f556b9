"""Each check of the agent's doctor, well and ill, with what it says to do."""

import base64
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.capabilities import NEEDED
from agent.config import AgentConfig, read_config
from agent.doctor.clock import STA_UNSYNC, check_clock
from agent.doctor.door import check_door, check_token
from agent.doctor.finding import Finding, State, lines
from agent.doctor.kernel import check_btf, check_kernel, check_lockdown, check_perf_events
from agent.doctor.rights import check_capabilities, check_places
from tests.certificates import Authority


def config(**values: str) -> AgentConfig:
    found, _ = read_config([], {"WATTLE_NODE": "n", **{f"WATTLE_{name.upper()}": v for name, v in values.items()}})
    return found


@pytest.mark.parametrize(
    ("release", "state"),
    [
        ("5.4.0-150-generic", State.ILL),
        ("5.8.0", State.POOR),
        ("6.1.0-13-amd64", State.POOR),
        ("6.3.1", State.WELL),
        ("10.0", State.WELL),
        ("what", State.ILL),
    ],
)
def test_kernel(release: str, state: State) -> None:
    assert check_kernel(release).state is state


def test_btf(tmp_path: Path) -> None:
    assert check_btf(tmp_path / "vmlinux").state is State.ILL
    (tmp_path / "vmlinux").write_bytes(bytes(4096))
    assert check_btf(tmp_path / "vmlinux").text.endswith("4 KiB")


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("none [integrity] confidentiality\n", State.WELL),
        ("none integrity [confidentiality]\n", State.ILL),
        ("", State.WELL),
    ],
)
def test_lockdown(tmp_path: Path, text: str, state: State) -> None:
    (tmp_path / "lockdown").write_text(text)
    assert check_lockdown(tmp_path / "lockdown").state is state


@pytest.mark.parametrize(
    ("text", "state"),
    [("3\n", State.POOR), ("4\n", State.POOR), ("2\n", State.WELL), ("-1\n", State.WELL), ("what", State.WELL)],
)
def test_perf_events_that_a_distribution_keeps_to_itself(tmp_path: Path, text: str, state: State) -> None:
    file = tmp_path / "perf_event_paranoid"
    assert check_perf_events(file).state is State.WELL, "a kernel without the file has no such rule"
    file.write_text(text)
    found = check_perf_events(file)
    assert found.state is state
    assert ("sysctl" in found.way_out) == (state is State.POOR)


def test_capabilities(tmp_path: Path) -> None:
    held = sum(1 << each.bit for each in NEEDED)
    for taken in NEEDED:
        (tmp_path / "status").write_text(f"CapEff:\t{held & ~(1 << taken.bit):016x}\n")
        [found] = check_capabilities(tmp_path / "status")
        assert taken.name in found.text
        assert found.state is (State.ILL if taken.required else State.POOR)
        assert "privileged" in found.way_out
    (tmp_path / "status").write_text(f"CapEff:\t{held:016x}\n")
    assert [each.state for each in check_capabilities(tmp_path / "status")] == [State.WELL]


def test_places(tmp_path: Path) -> None:
    for name in ("cgroup/x", "pods/y", "spool", "bpf/wattle"):
        (tmp_path / name).mkdir(parents=True)
    mounts = tmp_path / "mounts"
    mounts.write_text(f"none / ext4 rw 0 0\nbpf {tmp_path / 'bpf'} bpf rw 0 0\n")
    given = {
        "cgroup_root": str(tmp_path / "cgroup"),
        "pod_logs": str(tmp_path / "pods"),
        "pin_directory": str(tmp_path / "bpf" / "wattle"),
        "spool_directory": str(tmp_path / "spool"),
    }

    def states(**changed: str) -> list[State]:
        return [found.state for found in check_places(config(**{**given, **changed}), mounts)]

    assert states() == [State.WELL] * 4
    assert states(pod_logs=str(tmp_path / "none"))[1] is State.ILL
    assert states(cgroup_root=str(tmp_path / "spool"))[0] is State.ILL, "an empty folder is no control group"
    assert states(pin_directory=str(tmp_path / "spool"))[2] is State.POOR
    assert states(spool_directory=str(tmp_path / "none"))[3] is State.ILL
    del given["spool_directory"]
    assert states()[3] is State.POOR


def test_clock() -> None:
    assert check_clock(lambda: STA_UNSYNC).state is State.POOR
    assert check_clock(lambda: 0).state is State.WELL
    assert check_clock().state in State


def test_token(tmp_path: Path) -> None:
    def token(end: float) -> Path:
        claims = base64.urlsafe_b64encode(json.dumps({"exp": end}).encode()).decode().rstrip("=")
        (tmp_path / "token").write_text(f"head.{claims}.signature")
        return tmp_path / "token"

    assert check_token(token(1_000 + 600), 1_000).text == "10 minutes left"
    assert check_token(token(1_000 - 600), 1_000).state is State.ILL
    assert check_token(tmp_path / "none", 0).state is State.ILL
    (tmp_path / "token").write_text("opaque")
    assert check_token(tmp_path / "token", 0).state is State.WELL


# ---- the door -------------------------------------------------------------------------------------------------------


@pytest.fixture
def tls_server(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    import ssl

    authority = Authority(tmp_path)
    certificate, key = authority.issue("server", "DNS:localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["h2"])
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                try:
                    with context.wrap_socket(connection, server_side=True) as secured:
                        secured.recv(1)
                except OSError:
                    continue

    thread = threading.Thread(target=serve)
    thread.start()
    yield listener.getsockname()[1], authority.ca_file
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def door(port: int, ca_file: Path, tmp_path: Path, **more: str) -> list[Finding]:
    (tmp_path / "token").write_text("opaque")
    given = {"server": f"localhost:{port}", "ca_file": str(ca_file), "token_file": str(tmp_path / "token"), **more}
    return list(check_door(config(**given)))


def test_a_certificate_that_is_trusted_and_soon_ends(tls_server: tuple[int, Path], tmp_path: Path) -> None:
    certificate, token = door(*tls_server, tmp_path)
    assert (certificate.state, token.state) == (State.POOR, State.WELL), "the tests' authority issues for two days"
    assert "ends in 1 days" in certificate.text


def test_a_certificate_for_another_name(tls_server: tuple[int, Path], tmp_path: Path) -> None:
    certificate, _ = door(*tls_server, tmp_path, server_name="elsewhere")
    assert certificate.state is State.ILL
    assert "Hostname mismatch" in certificate.text


def test_a_certificate_of_another_authority(tls_server: tuple[int, Path], tmp_path: Path) -> None:
    certificate, _ = door(tls_server[0], Authority(tmp_path, "other").ca_file, tmp_path)
    assert certificate.state is State.ILL
    assert "is ca.crt that of this release?" in certificate.way_out


def test_nobody_answers(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        [found] = door(taken.getsockname()[1], tmp_path / "ca", tmp_path)
    assert found.state is State.ILL
    assert "NetworkPolicy" in found.way_out
    [found] = check_door(config(server="no-such-name.invalid:1", ca_file="/ca", token_file="/t"))
    assert "has no address" in found.text


def test_what_is_not_well_comes_with_a_way_out() -> None:
    said = list(lines([check_kernel("5.4"), check_kernel("6.9")]))
    assert said == [
        "ill   kernel: 5.4 is older than 5.8",
        "      -> use a node image with kernel 5.8 or newer",
        "well  kernel: 6.9",
    ]
