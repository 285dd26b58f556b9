"""Compiles, loads and attaches, in a child that does not stay.

Enters: which `Backend`, which control-group hierarchy. Leaves: `Loaded`, file descriptors of maps, programs and links.
Invariant: bcc, and with it LLVM's 60 MB, lives in the child only; the descriptors reach the agent by SCM_RIGHTS, and
what they stand for ends when the agent closes them or dies. `python -m agent.kernel.loader FD` is the child's half.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, assert_never

from agent.errors import AgentError, BpfSyscallError, LoaderError
from agent.kernel import bpf, perf
from agent.kernel.backends import (
    TRACEPOINT_WITHOUT_LENGTHS,
    Backend,
    BackendName,
    CgroupHook,
    Hook,
    Kprobe,
    Kretprobe,
    RawTracepoint,
    candidates,
)
from agent.kernel.btf import Btf
from agent.kernel.headers import CgroupSource, compiler_flags, source_text, write_header_tree

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_MAPS: Final = ("flows", "flows_0", "flows_1", "counters", "announcements", "listeners", "connections", "sightings")
_PERF_EVENT: Final = 41  # enum bpf_attach_type
_SET_PROGRAM: Final = 0x4004_2408  # PERF_EVENT_IOC_SET_BPF
_STALE_PROBE: Final = re.compile(r"^[pr]\d*:(\S+/\S+_bcc_(\d+))\b", re.MULTILINE)
_HEADERS: Final = "wattle-headers-"
_TIMEOUT_SECONDS: Final = 120  # QEMU without hardware acceleration needs 5 to 20
_MAX_DESCRIPTORS: Final = 128
_WORDS: Final = 2000  # characters of the child's own complaint that are kept


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadRequest:
    backend: Backend
    cgroups: CgroupSource
    cgroup_v2_root: str | None  # where cgroup hooks attach
    flow_entries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """Descriptors the caller now owns."""

    maps: Mapping[str, int]
    programs: Mapping[str, int]
    links: tuple[int, ...]
    skipped: tuple[str, ...]  # optional hooks that this kernel refused, as sentences

    def close(self) -> None:
        for descriptor in (*self.links, *self.programs.values(), *self.maps.values()):
            with contextlib.suppress(OSError):
                os.close(descriptor)


def load(request: LoadRequest) -> Loaded:
    """Run the child and take its descriptors."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(part for part in (root, os.environ.get("PYTHONPATH", "")) if part)
    with ours, theirs, tempfile.TemporaryFile() as complaints:
        ours.settimeout(_TIMEOUT_SECONDS)
        child = subprocess.Popen(
            [sys.executable, "-m", "agent.kernel.loader", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=complaints,
            stderr=complaints,
            env={**os.environ, "PYTHONPATH": path},
        )
        theirs.close()
        try:
            ours.send(json.dumps({**asdict(request), "backend": _backend_id(request.backend)}).encode())
            message, descriptors, _flags, _address = socket.recv_fds(ours, 1 << 16, _MAX_DESCRIPTORS)
        except OSError as exc:
            raise LoaderError(f"loading the {request.backend.name} backend: {exc}") from exc
        finally:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(timeout=5)
            if child.poll() is None:
                child.kill()
                child.wait()
        complaints.seek(0)
        words = complaints.read().decode("utf-8", "replace").strip()
    answer = json.loads(message) if message else {"error": f"the loader ended with {child.returncode}"}
    if "error" in answer:
        said = f"\n{words[-_WORDS:]}" if words else ""
        raise LoaderError(f"loading the {request.backend.name} backend: {answer['error']}{said}")
    maps, programs = answer["maps"], answer["programs"]
    taken = iter(descriptors)
    return Loaded(
        maps={name: next(taken) for name in maps},
        programs={name: next(taken) for name in programs},
        links=tuple(taken),
        skipped=tuple(answer["skipped"]),
    )


def _backend_id(backend: Backend) -> int:
    return candidates(BackendName.AUTO).index(backend)


# ---- the child -------------------------------------------------------------------------------------------------------


def sweep_stale_probes(events: Path = perf.KPROBE_EVENTS) -> list[str]:
    """Remove probes that a killed loader left: a kretprobe with maxactive outlives its descriptor."""
    swept = []
    with contextlib.suppress(OSError):
        for name, pid in _STALE_PROBE.findall(events.read_text(encoding="ascii")):
            if not Path(f"/proc/{pid}").exists():
                with contextlib.suppress(OSError):  # EBUSY: still attached
                    perf.change_probes(f"-:{name}", events)
                    swept.append(name)
    return swept


def sweep_stale_headers(temporary: Path | None = None) -> list[str]:
    """Remove header trees that a killed loader left: one that lives holds a lock on its own."""
    swept = []
    for folder in (temporary or Path(tempfile.gettempdir())).glob(f"{_HEADERS}*"):
        with contextlib.suppress(OSError), _held(folder):  # BlockingIOError: it is in use
            shutil.rmtree(folder)
            swept.append(folder.name)
    return swept


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _compile_and_attach(
    request: LoadRequest, header_root: Path
) -> tuple[dict[str, int], dict[str, int], list[int], list[str]]:
    release = os.uname().release
    write_header_tree(header_root, release=release, page_bytes=os.sysconf("SC_PAGESIZE"))
    os.environ["BCC_KERNEL_SOURCE"] = str(header_root)
    import bcc  # noqa: PLC0415  a parent that imports this module must not load LLVM

    flags = compiler_flags(
        Btf.load(), machine=platform.machine(), cgroups=request.cgroups, flow_entries=request.flow_entries
    )
    flags += [f"-D{define}" for define in request.backend.defines]
    module = bcc.BPF(text=source_text(), cflags=flags)
    programs: dict[str, int] = {}
    links: list[int] = []
    skipped: list[str] = []
    for hook in request.backend.hooks:
        try:
            attached = _attach(bcc, module, hook, request.cgroup_v2_root)
        except Exception as exc:  # bcc raises bare Exception
            if hook.required:
                raise LoaderError(f"attaching {hook.name}: {exc}") from exc
            skipped.append(f"{hook.name}: {exc}")
            continue
        for name, program, link in attached:
            programs[name] = program
            links.append(link)
    return {name: module[name].map_fd for name in _MAPS}, programs, links, skipped


def _attach(bcc: Any, module: Any, hook: Hook, cgroup_v2_root: str | None) -> list[tuple[str, int, int]]:
    """(program's name, its descriptor, its link's) of one hook."""
    function = hook.function.encode()
    match hook:
        case RawTracepoint():
            loaded = [
                (name, module.load_func(f"hook_{name}".encode(), bcc.BPF.RAW_TRACEPOINT).fd) for name in hook.programs
            ]
            return [(name, program, bpf.raw_tracepoint_open(program, hook.name)) for name, program in loaded]
        case Kprobe():
            program = module.load_func(function, bcc.BPF.KPROBE).fd
            return [(hook.name, program, _link_to_event(program, perf.kprobe_event(hook.name)))]
        case Kretprobe():
            program = module.load_func(function, bcc.BPF.KPROBE).fd
            event = perf.kretprobe_event(hook.name, max_active=hook.max_active)
            return [(hook.name, program, _link_to_event(program, event))]
        case CgroupHook():
            if cgroup_v2_root is None:
                raise LoaderError("no cgroup v2 tree is mounted to attach to")
            program = module.load_func(function, bcc.BPF.CGROUP_SOCK_ADDR, attach_type=hook.attach_type).fd
            tree = os.open(cgroup_v2_root, os.O_RDONLY | os.O_DIRECTORY)
            try:
                link = bpf.link_create(program, tree, hook.attach_type, "attaching to the cgroup tree")
            finally:
                os.close(tree)
            return [(hook.name, program, link)]
        case _:
            assert_never(hook)


def _link_to_event(program: int, event: int) -> int:
    """A link where the kernel makes one (since 5.15); else the event itself, which cannot be pinned."""
    try:
        link = bpf.link_create(program, event, _PERF_EVENT, "attaching to a probe")
    except BpfSyscallError:
        fcntl.ioctl(event, _SET_PROGRAM, program)
        return event
    os.close(event)
    return link


def _child(channel: socket.socket) -> int:
    raw = json.loads(channel.recv(1 << 16))
    request = LoadRequest(
        backend=candidates(BackendName.AUTO)[raw["backend"]],
        cgroups=CgroupSource(**raw["cgroups"]),
        cgroup_v2_root=raw["cgroup_v2_root"],
        flow_entries=raw["flow_entries"],
    )
    sweep_stale_headers()
    with tempfile.TemporaryDirectory(prefix=_HEADERS) as header_root, _held(Path(header_root)):
        try:
            if request.backend.name is BackendName.KPROBE:
                sweep_stale_probes()
            maps, programs, links, skipped = _compile_and_attach(request, Path(header_root))
        except AgentError as exc:
            channel.send(json.dumps({"error": str(exc)}).encode())
            return 1
        except Exception as exc:  # noqa: BLE001  bcc raises bare Exception; the parent must hear of any
            channel.send(json.dumps({"error": f"{type(exc).__name__}: {exc}"}).encode())
            return 1
        if request.backend is TRACEPOINT_WITHOUT_LENGTHS:
            skipped.append(request.backend.remark)
        answer = {"maps": list(maps), "programs": list(programs), "skipped": skipped}
        socket.send_fds(channel, [json.dumps(answer).encode()], [*maps.values(), *programs.values(), *links])
    return 0


if __name__ == "__main__":
    _status = _child(socket.socket(fileno=int(sys.argv[1])))
    sys.stdout.flush()
    os._exit(_status)  # not bcc's atexit: it would remove kprobe events that the agent now holds
