"""What the kernel counts outlives a killed agent, and its programs go on counting until the next one comes.

Enters: a directory in a bpf file system, an attached capture. Leaves: the capture of an agent that was killed, or what
it left in its maps, once.
Invariant: each agent pins its maps, stage, programs and links in a folder of its own, the manifest last. Where the
manifest names this very agent and this very request, the next agent takes all of it over: no event is missed between
the two, and none is counted twice. Where it does not, those programs count until the moment at which the next agent's
own begin to, and their maps are emptied through their own stage, so that an agent which is killed while it does this
loses and doubles nothing either. A folder is removed only after what it held is in the spool. An orderly end takes
everything away; a reboot takes pins and clocks away together.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from agent.errors import AgentError, AlreadyRunningError
from agent.kernel import bpf
from agent.kernel.backends import BackendName, candidates
from agent.kernel.capture import Capture, CaptureRequest
from agent.kernel.loader import Loaded
from agent.kernel.maps import Drained, Instant, check_layout, leftovers
from agent.kernel.stage import Place, Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

log = logging.getLogger(__name__)

_MOUNTS: Final = Path("/proc/self/mountinfo")
_INNER: Final = ("flows_0", "flows_1")
_OUTER: Final = "flows"
_STAGE, _MANIFEST = "stage", "manifest"
_PROGRAM, _LINK = "program_", "link_"
_MANIFEST_BYTES: Final = 4096
_REMARK_CHARACTERS: Final = 400  # of why a backend or a hook was refused


class Pins:
    """One agent's folder below `directory`, and those of its predecessors."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            os.close(self._lock)
            raise AlreadyRunningError(f"another agent counts on this node: it holds {directory}") from exc
        self._own = directory / f"agent-{os.getpid()}-{Instant.now().boot_ns}"
        self._earlier = [path for path in directory.iterdir() if path.is_dir()]
        self._taken_over: Capture | None = None

    def pin(self, capture: Capture, request: CaptureRequest) -> None:
        """Where the kernel pins no links (before 5.15, kprobes), programs end with their agent, and its maps remain."""
        self._own.mkdir(mode=0o700)
        loaded = capture.loaded
        stage = capture.stage.descriptor
        assert stage is not None
        for name, descriptor in (*loaded.maps.items(), (_STAGE, stage)):
            bpf.pin(descriptor, str(self._own / name))
        try:
            for name, descriptor in loaded.programs.items():
                bpf.pin(descriptor, str(self._own / f"{_PROGRAM}{name}"))
            for number, descriptor in enumerate(loaded.links):
                bpf.pin(descriptor, str(self._own / f"{_LINK}{number}"))
        except AgentError as exc:
            log.warning("programs of this agent end with it, also when it is killed: %s", exc)
            self._let_go(self._own)
            return
        _pin_manifest(self._own / _MANIFEST, _manifest(capture, request))

    def take_over(self, request: CaptureRequest, works: Callable[[Capture], None]) -> Capture | None:
        """The capture of an agent that was killed, where this agent would make the same and `works` does not raise."""
        for folder in self._earlier:
            manifest = _read_manifest(folder)
            if manifest is None or not _would_be_made(manifest, request):
                continue
            try:
                capture = _open(folder, manifest)
                try:
                    works(capture)
                except BaseException:
                    capture.close()
                    raise
            except AgentError as exc:
                log.warning("the programs that an agent left in %s are not taken over: %s", folder, exc)
                continue
            self._own, self._taken_over = folder, capture
            self._earlier.remove(folder)
            return capture
        return None

    def silence(self) -> None:
        """What earlier agents left counts no more; synchronous, unlike the end of its links."""
        for folder in self._earlier:
            with suppress(AgentError), ExitStack() as opened:
                outer = bpf.get_pinned(str(folder / _OUTER))
                opened.callback(os.close, outer)
                bpf.unset_inner_map(outer)
            self._let_go(folder)

    def leftovers(self, took: Callable[[Place], bool]) -> Iterator[tuple[Drained, Stage]]:
        """What earlier agents did not get round to deliver, part by part, each with the stage it stands in.

        A part is gone when the next is asked for, and a folder when all of it is. Maps of another layout are left out.
        """
        for folder in self._earlier:
            try:
                yield from _leftovers(folder, took)
            except AgentError as exc:
                log.warning("what an earlier agent left in %s cannot be read: %s", folder, exc)
            shutil.rmtree(folder, ignore_errors=True)
        self._earlier = []
        if self._taken_over is not None:
            yield from self._taken_over.left_behind(took)
            self._taken_over = None

    def close(self, *, orderly: bool) -> None:
        """An orderly end drained everything: nothing is left behind. Any other leaves it to the next agent."""
        if orderly:
            shutil.rmtree(self._own, ignore_errors=True)
        with suppress(OSError):
            os.close(self._lock)

    @staticmethod
    def _let_go(folder: Path) -> None:
        for path in (*folder.glob(f"{_LINK}*"), *folder.glob(f"{_PROGRAM}*")):
            path.unlink(missing_ok=True)


def in_bpf_file_system(directory: Path, mounts: Path = _MOUNTS) -> bool:
    """Whether the innermost mount above `directory` is one (proc(5), mountinfo)."""
    innermost, kind = "", ""
    for line in mounts.read_text(encoding="utf-8").splitlines():
        before, _separator, after = line.partition(" - ")
        point = before.split(" ")[4]
        if directory.is_relative_to(point) and len(point) >= len(innermost):
            innermost, kind = point, after.split(" ")[0]
    return kind == "bpf"


# ---- one folder ------------------------------------------------------------------------------------------------------


def _manifest(capture: Capture, request: CaptureRequest) -> dict[str, Any]:
    return {
        "code": _code(),
        "request": _settings(request),
        "backend": candidates(BackendName.AUTO).index(capture.backend),
        "refused": [sentence[:_REMARK_CHARACTERS] for sentence in capture.refused],
        "skipped": [sentence[:_REMARK_CHARACTERS] for sentence in capture.loaded.skipped],
        "maps": list(capture.loaded.maps),
        "programs": list(capture.loaded.programs),
        "links": len(capture.loaded.links),
    }


def _would_be_made(manifest: dict[str, Any], request: CaptureRequest) -> bool:
    return bool(
        manifest["code"] == _code()
        and manifest["request"] == _settings(request)
        and candidates(BackendName.AUTO)[manifest["backend"]] in candidates(request.backend)
    )


def _settings(request: CaptureRequest) -> dict[str, Any]:
    settings = asdict(request)
    del settings["backend"]  # what a person asks for: several ways may lead to the same
    return settings


def _code() -> str:
    """Of all that decides what a program counts and where. The kernel is the same: pins do not outlive a boot."""
    digest = hashlib.sha256()
    here = Path(__file__).parent
    for path in (*sorted(here.glob("*.[chp]*")), here.parent / "flow.py"):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _pin_manifest(path: Path, manifest: dict[str, Any]) -> None:
    descriptor = bpf.create_array(_MANIFEST_BYTES)
    try:
        text = json.dumps(manifest).encode()
        if len(text) > _MANIFEST_BYTES:
            text = json.dumps({**manifest, "refused": [], "skipped": []}).encode()
        bpf.update(descriptor, bytes(4), text.ljust(_MANIFEST_BYTES, b" "))
        bpf.pin(descriptor, str(path))
    finally:
        os.close(descriptor)


def _read_manifest(folder: Path) -> dict[str, Any] | None:
    """None: of an agent that was killed while it pinned, whose links could not be pinned, or of an older one."""
    with ExitStack() as opened:
        try:
            descriptor = bpf.get_pinned(str(folder / _MANIFEST))
            opened.callback(os.close, descriptor)
            text = bpf.lookup(descriptor, bytes(4), bpf.map_info(descriptor).value_bytes)
            found: dict[str, Any] = json.loads(text or b"")
        except (AgentError, ValueError):
            return None
    return found


def _open(folder: Path, manifest: dict[str, Any]) -> Capture:
    with ExitStack() as opened:

        def get(name: str) -> int:
            descriptor = bpf.get_pinned(str(folder / name))
            opened.callback(os.close, descriptor)
            return descriptor

        loaded = Loaded(
            maps={name: get(name) for name in manifest["maps"]},
            programs={name: get(f"{_PROGRAM}{name}") for name in manifest["programs"]},
            links=tuple(get(f"{_LINK}{number}") for number in range(manifest["links"])),
            skipped=tuple(manifest["skipped"]),
        )
        stage = Stage.open_pinned(str(folder / _STAGE))
        opened.callback(stage.close)
        backend = candidates(BackendName.AUTO)[manifest["backend"]]
        capture = Capture(backend, loaded, tuple(manifest["refused"]), stage=stage)
        opened.pop_all()
    return capture


def _leftovers(folder: Path, took: Callable[[Place], bool]) -> Iterator[tuple[Drained, Stage]]:
    with ExitStack() as opened:
        stage = Stage.open_pinned(str(folder / _STAGE)) if (folder / _STAGE).exists() else Stage()
        opened.callback(stage.close)
        for path in (folder / name for name in _INNER):
            if not path.exists():
                continue  # killed while it pinned
            descriptor = bpf.get_pinned(str(path))
            opened.callback(os.close, descriptor)
            check_layout(descriptor)
            for drained in leftovers(stage, descriptor, took):
                yield drained, stage
