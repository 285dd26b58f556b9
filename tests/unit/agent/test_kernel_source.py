"""The C source, its two toolchains and the Python that mirrors it agree."""

import fcntl
import os
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from agent.errors import BtfError, LoaderError, NoBackendError
from agent.flow import FlowKey, FlowStats
from agent.kernel.backends import KPROBE, TRACEPOINT, BackendName, CgroupHook, RawTracepoint, candidates
from agent.kernel.bpf import ProgramInfo
from agent.kernel.btf import Btf
from agent.kernel.capture import Capture, CaptureRequest, open_capture
from agent.kernel.headers import FIELDS, CgroupSource, compiler_flags, source_text, write_header_tree
from agent.kernel.loader import Loaded, LoadRequest, sweep_stale_headers, sweep_stale_probes
from agent.kernel.maps import Counter, possible_cpus

KERNEL = Path(__file__).resolve().parents[3] / "agent/kernel"


def test_every_field_that_is_read_has_an_offset_and_a_core_path() -> None:
    source = source_text()
    read = set(re.findall(r"\b(?:READ|READ_AT|HEAD)\([^,]+, ([A-Z0-9_]+),", source)) | {
        "SOCK_PROTOCOL",
        "SOCK_USERLOCKS",
    }
    assert read == set(FIELDS)
    core = set(re.findall(r"#define FIELD_([A-Z0-9_]+)\(p\)", (KERNEL / "core.h").read_text()))
    assert core == set(FIELDS) - {"SOCK_USERLOCKS"}  # a bit-field there, read with its own macro


def test_hooks_that_backends_name_are_in_the_source() -> None:
    source = source_text()
    defined = set(re.findall(r"^(?:RAW_TRACEPOINT|KPROBE|KRETPROBE|CGROUP_HOOK)\((\w+)\)", source, re.MULTILINE))
    assert {hook.name for backend in candidates(BackendName.AUTO) for hook in backend.hooks} == defined
    hooks = [hook for backend in candidates(BackendName.AUTO) for hook in backend.hooks]
    twice = set(re.findall(r"^RAW_TRACEPOINT_AGAIN\((\w+)\)", source, re.MULTILINE))
    assert {hook.name for hook in hooks if isinstance(hook, RawTracepoint) and hook.twice} == twice


def test_cgroup_hooks_never_block() -> None:
    """They sit in the data path: 0 would refuse the datagram."""
    source = source_text()
    bodies = re.findall(
        r"int (?:remember_v[46]|uncounted)\(struct bpf_sock_addr \*ctx\)\n\{(.*?)^\}", source, re.MULTILINE | re.DOTALL
    )
    assert len(bodies) == 3
    assert all(re.findall(r"return (\w+);", body) == ["1"] for body in bodies)


def test_own_headers_are_pasted_in_and_nothing_else() -> None:
    text = source_text()
    assert "struct flow_key {" in text
    assert '#include "flows.h"' not in text
    assert '#include "vmlinux.h"' in text  # CO-RE only, behind #ifdef


def test_counters_are_numbered_alike() -> None:
    header = (KERNEL / "flows.h").read_text()
    names = re.findall(r"^\tCOUNTER_(\w+),", header, re.MULTILINE)
    assert [counter.name for counter in Counter] == names


def test_layouts_are_the_compilers_own(tmp_path: Path) -> None:
    """clang's debug information, read by the agent's own BTF reader."""
    clang = shutil.which("clang")
    if clang is None:
        pytest.skip("no clang here; `make setup` installs it")
    source = tmp_path / "layout.c"
    types = (
        "typedef unsigned char u8; typedef unsigned short u16; typedef unsigned u32; typedef unsigned long long u64;\n"
    )
    source.write_text(types + '#include "flows.h"\nstruct flow_key key; struct flow_stats stats;\n')
    made = tmp_path / "layout.o"
    subprocess.run(
        [clang, "-target", "bpf", "-g", "-O2", f"-I{KERNEL}", "-c", str(source), "-o", str(made)], check=True
    )
    subprocess.run(
        [llvm_objcopy(), "--dump-section", f".BTF={tmp_path / 'btf'}", str(made), str(tmp_path / "unused.o")],
        check=True,
    )
    btf = Btf((tmp_path / "btf").read_bytes())
    for name, dtype in (("flow_key", FlowKey), ("flow_stats", FlowStats)):
        assert btf.struct_size(name) == dtype.itemsize
        for field, (_type, offset) in dtype.fields.items():
            assert btf.field(name, field).byte_offset == offset, f"{name}.{field}"


def llvm_objcopy() -> str:
    found = shutil.which("llvm-objcopy") or next(
        (str(path) for path in sorted(Path("/usr/lib").glob("llvm-*/bin/llvm-objcopy"), reverse=True)), None
    )
    if found is None:
        pytest.skip("no llvm-objcopy here; `make setup` installs llvm")
    return found


class NoFields(Btf):
    def __init__(self) -> None:
        """A kernel that knows nothing."""

    def field(self, struct_name: str, path: str):
        raise BtfError(f"finding {struct_name}.{path}: no such struct")


def test_no_offset_is_guessed() -> None:
    with pytest.raises(BtfError, match=r"finding sock\."):
        compiler_flags(NoFields(), machine="x86_64", cgroups=CgroupSource(hierarchy_id=0), flow_entries=16)


def test_header_tree_clamps_the_sublevel(tmp_path: Path) -> None:
    write_header_tree(tmp_path, release="6.1.300-generic", page_bytes=4096)
    assert (
        f"#define LINUX_VERSION_CODE {(6 << 16) + (1 << 8) + 255}\n"
        in (tmp_path / "include/linux/version.h").read_text()
    )


def test_backends_are_tried_in_order_and_refusals_are_kept() -> None:
    tried = []

    def refuse(request: LoadRequest) -> Loaded:
        tried.append(request.backend)
        raise LoaderError(f"loading the {request.backend.name} backend: Operation not permitted")

    request = CaptureRequest(
        backend=BackendName.AUTO, cgroups=CgroupSource(hierarchy_id=0), cgroup_v2_root=None, flow_entries=16
    )
    with pytest.raises(NoBackendError, match=r"kprobe backend: Operation not permitted; .*tracepoint backend"):
        open_capture(request, loader=refuse)
    assert tried[:2] == [KPROBE, TRACEPOINT]


def test_accept_probe_has_room_for_many_blocked_acceptors() -> None:
    """Row 2 of the pitfalls: the default lost 30 of 40."""
    (accept,) = [hook for hook in KPROBE.hooks if hook.name == "inet_csk_accept"]
    assert accept.max_active >= 512
    assert not any(isinstance(hook, CgroupHook) for hook in KPROBE.hooks)


def test_probes_of_dead_loaders_are_swept(tmp_path: Path) -> None:
    events = tmp_path / "kprobe_events"
    events.write_text(
        "p:kprobes/p_tcp_connect_bcc_1 tcp_connect\n"
        "r512:kprobes/r_inet_csk_accept_bcc_999999999 inet_csk_accept\n"
        "p:kprobes/somebody_elses tcp_connect\n"
    )
    assert sweep_stale_probes(events) == ["kprobes/r_inet_csk_accept_bcc_999999999"]
    assert events.read_text().endswith("-:kprobes/r_inet_csk_accept_bcc_999999999\n")


def test_header_trees_of_dead_loaders_are_swept(tmp_path: Path) -> None:
    for name in ("wattle-headers-dead", "wattle-headers-alive", "somebody-elses"):
        (tmp_path / name / "include").mkdir(parents=True)
    descriptor = os.open(tmp_path / "wattle-headers-alive", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    assert sweep_stale_headers(tmp_path) == ["wattle-headers-dead"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["somebody-elses", "wattle-headers-alive"]
    os.close(descriptor)
    assert sweep_stale_headers(tmp_path) == ["wattle-headers-alive"]


@pytest.mark.parametrize(("text", "cpus"), [("0-1\n", 2), ("0\n", 1), ("0-3,8-11\n", 12)])
def test_possible_cpus(tmp_path: Path, text: str, cpus: int) -> None:
    (tmp_path / "possible").write_text(text)
    assert possible_cpus(tmp_path / "possible") == cpus


def test_an_event_is_missed_where_neither_program_of_its_hook_ran() -> None:
    def ran(missed: int) -> ProgramInfo:
        return ProgramInfo(name="", run_time_ns=0, runs=0, missed=missed)

    programs = {"state": ran(7), "state_again": ran(3), "report": ran(0), "report_again": ran(5), "sendmsg": ran(2)}
    capture = SimpleNamespace(programs=lambda: programs)
    assert Capture.missed(capture) == 3 + 0 + 2  # type: ignore[arg-type]
