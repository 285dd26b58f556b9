"""What BCC needs to compile flows.bpf.c without kernel headers.

Enters: the running kernel's BTF and the machine. Leaves: compiler flags with every offset the C source reads, a source
text with its own includes pasted in, and a 40-line stand-in for the header tree that BCC insists on.
Invariant: no offset is guessed: what BTF does not have is a BtfError that names it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from agent.errors import BtfError, KernelError

if TYPE_CHECKING:
    from agent.kernel.btf import Btf

SOURCE: Final = Path(__file__).parent / "flows.bpf.c"

# OFFSET_<name> in the C source -> struct and field in the kernel.
FIELDS: Final = {
    "SOCK_NET": ("sock", "__sk_common.skc_net.net"),
    "SOCK_FAMILY": ("sock", "__sk_common.skc_family"),
    "SOCK_LOCAL_PORT": ("sock", "__sk_common.skc_num"),
    "SOCK_REMOTE_PORT": ("sock", "__sk_common.skc_dport"),
    "SOCK_LOCAL_V4": ("sock", "__sk_common.skc_rcv_saddr"),
    "SOCK_REMOTE_V4": ("sock", "__sk_common.skc_daddr"),
    "SOCK_LOCAL_V6": ("sock", "__sk_common.skc_v6_rcv_saddr"),
    "SOCK_REMOTE_V6": ("sock", "__sk_common.skc_v6_daddr"),
    "SOCK_FLAGS": ("sock", "__sk_common.skc_flags"),
    "SOCK_ERROR": ("sock", "sk_err"),
    "SOCK_SOFT_ERROR": ("sock", "sk_err_soft"),
    "SOCK_PROTOCOL": ("sock", "sk_protocol"),
    "SOCK_USERLOCKS": ("sock", "sk_userlocks"),
    "SOCK_CGROUP": ("sock", "sk_cgrp_data.cgroup"),
    "NET_INODE": ("net", "ns.inum"),
    "NET_COOKIE": ("net", "net_cookie"),
    "TCP_BYTES_SENT": ("tcp_sock", "bytes_sent"),
    "TCP_BYTES_RETRANS": ("tcp_sock", "bytes_retrans"),
    "TCP_BYTES_RECEIVED": ("tcp_sock", "bytes_received"),
    "TASK_LEADER": ("task_struct", "group_leader"),
    "TASK_COMM": ("task_struct", "comm"),
    "TASK_CGROUPS": ("task_struct", "cgroups"),
    "CSS_SET_SUBSYS": ("css_set", "subsys"),
    "CSS_CGROUP": ("cgroup_subsys_state", "cgroup"),
    "CGROUP_KN": ("cgroup", "kn"),
    "CGROUP_ROOT": ("cgroup", "root"),
    "ROOT_HIERARCHY_ID": ("cgroup_root", "hierarchy_id"),
    "KERNFS_ID": ("kernfs_node", "id"),
    "MESSAGE_NAME": ("msghdr", "msg_name"),
    "SKB_HEAD": ("sk_buff", "head"),
    "SKB_NETWORK": ("sk_buff", "network_header"),
    "SKB_TRANSPORT": ("sk_buff", "transport_header"),
    "SKB_PROTOCOL": ("sk_buff", "protocol"),
}

# Position of a register in struct pt_regs, in words: arch/*/include/asm/ptrace.h and the C calling convention.
REGISTERS: Final = {
    "x86_64": {"ARGUMENT1": 14, "ARGUMENT2": 13, "ARGUMENT3": 12, "RETURNED": 10},
    "aarch64": {"ARGUMENT1": 0, "ARGUMENT2": 1, "ARGUMENT3": 2, "RETURNED": 0},
}

# What the head of a socket holds, read at once: struct sock_common, field -> bytes.
_HEAD: Final = {
    "SOCK_NET": 8,
    "SOCK_FAMILY": 2,
    "SOCK_LOCAL_PORT": 2,
    "SOCK_REMOTE_PORT": 2,
    "SOCK_LOCAL_V4": 4,
    "SOCK_REMOTE_V4": 4,
    "SOCK_LOCAL_V6": 16,
    "SOCK_REMOTE_V6": 16,
}

_TYPES: Final = """\
#pragma once
typedef signed char s8; typedef unsigned char u8; typedef short s16; typedef unsigned short u16;
typedef int s32; typedef unsigned int u32; typedef long long s64; typedef unsigned long long u64;
typedef s8 __s8; typedef u8 __u8; typedef s16 __s16; typedef u16 __u16;
typedef s32 __s32; typedef u32 __u32; typedef s64 __s64; typedef u64 __u64;
typedef u16 __be16; typedef u32 __be32; typedef u64 __be64; typedef u16 __le16; typedef u32 __le32; typedef u64 __le64;
typedef u16 __sum16; typedef u32 __wsum; typedef unsigned long size_t; typedef long ssize_t; typedef int pid_t;
typedef unsigned long uintptr_t; typedef _Bool bool;
#define __aligned_u64 __u64 __attribute__((aligned(8)))
#define NULL ((void *)0)
#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif
struct pt_regs { unsigned long words[64]; };
"""
_KERNEL_VERSION: Final = "#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + (c))\n"
_PRAGMA_ONCE: Final = "#pragma once\n"
_INCLUDE: Final = re.compile(
    r'^#include "((?:flows|bcc|bcc_maps|tcp|udp|hooks_kprobe|hooks_tracepoint)\.h)"$', re.MULTILINE
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupSource:
    """Which hierarchy the pods' control groups live in; `subsystem` is None for cgroup v2."""

    hierarchy_id: int
    subsystem: str | None = None


def compiler_flags(btf: Btf, *, machine: str, cgroups: CgroupSource, flow_entries: int) -> list[str]:
    """-D for everything the C source asks for."""
    registers = REGISTERS.get(machine)
    if registers is None:
        raise KernelError(f"compiling for {machine}: only {', '.join(REGISTERS)} are known")
    flags = [f"-DOFFSET_{name}={btf.field(*where).byte_offset}" for name, where in FIELDS.items()]
    head = max(btf.field(*FIELDS[name]).byte_offset + size for name, size in _HEAD.items())
    flags.append(f"-DSOCK_HEAD_BYTES={(head + 7) // 8 * 8}")
    locks = btf.field(*FIELDS["SOCK_USERLOCKS"])
    flags += [f"-DSHIFT_SOCK_USERLOCKS={locks.shift}", f"-DMASK_SOCK_USERLOCKS={locks.mask}"]
    flags += [f"-DREGISTER_{name}={position}" for name, position in registers.items()]
    flags += [f"-DFLOW_ENTRIES={flow_entries}", f"-DCGROUP_HIERARCHY_ID={cgroups.hierarchy_id}"]
    if cgroups.subsystem is not None:
        index = btf.enumerator("cgroup_subsys_id", f"{cgroups.subsystem}_cgrp_id")
        if index is None:
            raise BtfError(f"finding the cgroup v1 subsystem {cgroups.subsystem}: the kernel has none")
        flags.append(f"-DCGROUP_V1_SUBSYSTEM={index}")
    return flags


def source_text() -> str:
    """flows.bpf.c with its own headers pasted in: BCC rewrites map access in the main file only."""
    text = SOURCE.read_text(encoding="utf-8")
    return _INCLUDE.sub(lambda match: (SOURCE.parent / match[1]).read_text(encoding="utf-8"), text)


def write_header_tree(root: Path, *, release: str, page_bytes: int) -> None:
    """Write what BCC looks for under $BCC_KERNEL_SOURCE; without linux/kconfig.h it would run modprobe."""
    version = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", release)
    if version is None:
        raise KernelError(f"reading the kernel's release {release!r}: not a version")
    major, minor, patch = (int(part or 0) for part in version.groups())
    code = (major << 16) + (minor << 8) + min(patch, 255)
    files = {
        "linux/kconfig.h": "#define CONFIG_BPF_SYSCALL 1\n",
        "linux/types.h": _TYPES,
        "linux/version.h": f"#define LINUX_VERSION_CODE {code}\n{_KERNEL_VERSION}",
        "linux/log2.h": "#define roundup_pow_of_two(n) ((n) <= 1 ? 1UL : 1UL << (64 - __builtin_clzl((n) - 1)))\n",
        "asm/page.h": f"#define PAGE_SIZE {page_bytes}\n",
        "linux/bpf_common.h": _PRAGMA_ONCE,
        "uapi/linux/bpf.h": _PRAGMA_ONCE,  # BCC brings its own
        "uapi/linux/if_packet.h": _PRAGMA_ONCE,
        "uapi/linux/ptrace.h": "#include <linux/types.h>\n",
        "linux/ptrace.h": "#include <linux/types.h>\n",
    }
    for name, text in files.items():
        path = root / "include" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
