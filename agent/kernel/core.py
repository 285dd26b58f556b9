"""Compiles flows.bpf.c as CO-RE: a check that one source serves both toolchains, and a later way without LLVM on nodes.

Enters: this kernel's BTF, clang, libbpf. Leaves: one object a backend under build/bpf/. Run by `make bpf-core`; nothing
of the agent imports it. vmlinux.h holds only the types that the source reaches; libbpf writes them, not bpftool.
"""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from agent.errors import AgentError, BtfError, KernelError
from agent.kernel.backends import BackendName, candidates
from agent.kernel.btf import VMLINUX
from agent.kernel.headers import FIELDS, REGISTERS, SOURCE

OUTPUT: Final = Path("build/bpf")
_STRUCTS: Final = ("pt_regs", "bpf_raw_tracepoint_args", "bpf_sock_addr")
_TYPEDEFS: Final = (
    *tuple(f"{prefix}{sign}{bits}" for prefix in ("", "__") for sign in "us" for bits in (8, 16, 32, 64)),
    "__be16",
    "__be32",
    "__be64",
    "__le16",
    "__le32",
    "__sum16",
    "__wsum",
    "bool",
    "size_t",
)
_KIND_STRUCT, _KIND_ENUM, _KIND_TYPEDEF = 4, 6, 8
_PRINT: Final = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
_FRAGMENT_BYTES: Final = 65_536


def vmlinux_header(btf_path: Path = VMLINUX) -> str:
    """The types that flows.bpf.c reaches, relocatable."""
    bpf, libc = _libbpf(), ctypes.CDLL(None)
    libc.vsnprintf.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_void_p]
    btf = bpf.btf__parse(str(btf_path).encode(), None)
    if not btf:
        raise BtfError(f"reading {btf_path} with libbpf")
    buffer = ctypes.create_string_buffer(_FRAGMENT_BYTES)
    fragments: list[bytes] = []

    def keep(_context: int, layout: int, arguments: int) -> None:
        length = libc.vsnprintf(ctypes.addressof(buffer), _FRAGMENT_BYTES, layout, arguments)
        fragments.append(buffer.raw[:length])

    callback = _PRINT(keep)
    dump = bpf.btf_dump__new(btf, callback, None, None)
    roots = [(_KIND_STRUCT, name) for name in sorted({struct for struct, _field in FIELDS.values()}.union(_STRUCTS))]
    for kind, name in [*((_KIND_TYPEDEF, name) for name in _TYPEDEFS), (_KIND_ENUM, "bpf_map_type"), *roots]:
        found = bpf.btf__find_by_name_kind(btf, name.encode(), kind)
        if found > 0 and bpf.btf_dump__dump_type(dump, found):
            raise BtfError(f"writing {name} with libbpf")
    bpf.btf_dump__free(dump)
    bpf.btf__free(btf)
    return (
        "#pragma clang attribute push (__attribute__((preserve_access_index)), apply_to = record)\n"
        + b"".join(fragments).decode()
        + "#pragma clang attribute pop\n"
    )


def compile_core(output: Path) -> list[Path]:
    """One object for each backend variant."""
    output.mkdir(parents=True, exist_ok=True)
    (output / "vmlinux.h").write_text(vmlinux_header(), encoding="utf-8")
    machine = platform.machine()
    if machine not in REGISTERS:
        raise KernelError(f"compiling for {machine}: only {', '.join(REGISTERS)} are known")
    made = []
    for number, backend in enumerate(candidates(BackendName.AUTO)):
        target = output / f"{number}-{backend.name}.o"
        flags = [
            "-target",
            "bpf",
            "-g",
            "-O2",
            "-Wall",
            "-Wno-unused-function",
            "-DWATTLE_CORE",
            "-DCGROUP_HIERARCHY_ID=0",
        ]
        flags += [f"-DREGISTER_{name}={position}" for name, position in REGISTERS[machine].items()]
        flags += [f"-D{define}" for define in backend.defines]
        done = subprocess.run(
            ["clang", *flags, f"-I{output}", f"-I{SOURCE.parent}", "-c", str(SOURCE), "-o", str(target)],
            check=False,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise KernelError(f"compiling {target.name} with clang:\n{done.stderr}")
        made.append(target)
    return made


def load_core(path: Path) -> None:
    """Ask this kernel's verifier; attaches nothing."""
    bpf = _libbpf()
    opened = bpf.bpf_object__open_file(str(path).encode(), None)
    if not opened:
        raise KernelError(f"opening {path} with libbpf")
    status = bpf.bpf_object__load(opened)
    bpf.bpf_object__close(opened)
    if status:
        raise KernelError(f"loading {path}: the kernel refuses it ({status})")


def _libbpf() -> Any:
    try:
        bpf = ctypes.CDLL("libbpf.so.1", use_errno=True)
    except OSError as exc:
        raise KernelError("no libbpf.so.1 here; Debian's python3-bpfcc brings it") from exc
    bpf.btf__parse.restype = ctypes.c_void_p
    bpf.btf__parse.argtypes = [ctypes.c_char_p, ctypes.c_void_p]
    bpf.btf__free.argtypes = [ctypes.c_void_p]
    bpf.btf__find_by_name_kind.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint32]
    bpf.btf_dump__new.restype = ctypes.c_void_p
    bpf.btf_dump__new.argtypes = [ctypes.c_void_p, _PRINT, ctypes.c_void_p, ctypes.c_void_p]
    bpf.btf_dump__dump_type.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    bpf.btf_dump__free.argtypes = [ctypes.c_void_p]
    bpf.bpf_object__open_file.restype = ctypes.c_void_p
    bpf.bpf_object__open_file.argtypes = [ctypes.c_char_p, ctypes.c_void_p]
    bpf.bpf_object__load.argtypes = [ctypes.c_void_p]
    bpf.bpf_object__close.argtypes = [ctypes.c_void_p]
    return bpf


def main() -> int:
    try:
        for path in compile_core(OUTPUT):
            sys.stdout.write(f"{path}: {path.stat().st_size} bytes\n")
    except AgentError as exc:
        sys.stderr.write(f"bpf-core: {exc}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
