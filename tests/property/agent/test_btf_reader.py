"""The BTF reader: arbitrary bytes give BtfError, never another exception; what is written can be read."""

import struct
from contextlib import suppress
from functools import cache

from hypothesis import given
from hypothesis import strategies as st

from agent.errors import BtfError
from agent.kernel.btf import VMLINUX, Btf

HEADER = struct.Struct("<HBBIIIII")
LOOKUPS = (("sock", "sk_err"), ("net", "ns.inum"), ("a", "b.c"))


def exercise(data: bytes) -> None:
    with suppress(BtfError):
        btf = Btf(data)
        for where in LOOKUPS:
            with suppress(BtfError):
                btf.field(*where)
            with suppress(BtfError):
                btf.struct_size(where[0])
        with suppress(BtfError):
            btf.enumerator("cgroup_subsys_id", "pids_cgrp_id")
        btf.has_function("tcp_connect")


@given(st.binary(max_size=400))
def test_arbitrary_bytes(data: bytes) -> None:
    exercise(data)


@given(st.binary(max_size=300), st.binary(max_size=100))
def test_arbitrary_types_behind_a_true_header(types: bytes, strings: bytes) -> None:
    exercise(HEADER.pack(0xEB9F, 1, 0, HEADER.size, 0, len(types), len(types), len(strings)) + types + strings)


@cache
def small_btf() -> bytes:
    return build([("sock", [("sk_err", 0), ("", 32)]), ("net", [("ns", 64)])])


@given(st.data())
def test_flipped_bytes_of_true_btf(data: st.DataObject) -> None:
    damaged = bytearray(small_btf())
    for _ in range(data.draw(st.integers(1, 6))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    exercise(bytes(damaged))


def build(structs: list[tuple[str, list[tuple[str, int]]]]) -> bytes:
    """BTF with an int as type 1 and the structs after it; an unnamed member is an int, too."""
    strings = bytearray(b"\0")

    def string(text: str) -> int:
        if not text:
            return 0
        strings.extend(text.encode() + b"\0")
        return len(strings) - len(text.encode()) - 1

    types = struct.pack("<IIII", string("int"), 1 << 24, 4, 32)
    for name, members in structs:
        types += struct.pack("<III", string(name), (4 << 24) | len(members), 64)
        for member, offset in members:
            types += struct.pack("<III", string(member), 1, offset)
    return HEADER.pack(0xEB9F, 1, 0, HEADER.size, 0, len(types), len(types), len(strings)) + types + bytes(strings)


@given(
    st.dictionaries(
        st.from_regex(r"[a-z_]{1,8}", fullmatch=True),
        st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), st.integers(0, 1 << 20), max_size=6),
        min_size=1,
        max_size=6,
    )
)
def test_what_is_written_can_be_read(structs: dict[str, dict[str, int]]) -> None:
    btf = Btf(build([(name, list(members.items())) for name, members in structs.items()]))
    for name, members in structs.items():
        for member, offset in members.items():
            assert btf.field(name, member).bit_offset == offset


def test_a_name_may_be_the_tail_of_another() -> None:
    """No writer of the kernel's BTF shares strings so; the format allows it."""
    strings = b"\0unsock\0sk\0"
    types = struct.pack("<IIIIII", 3, (4 << 24) | 1, 8, 8, 2, 0) + struct.pack("<IIII", 1, 1 << 24, 4, 32)
    data = HEADER.pack(0xEB9F, 1, 0, HEADER.size, 0, len(types), len(types), len(strings)) + types + strings
    assert Btf(data).field("sock", "sk").bit_offset == 0


def test_the_first_of_two_types_of_one_name_counts() -> None:
    btf = Btf(build([("sock", [("a", 8)]), ("net", [("a", 16)]), ("sock", [("a", 32)])]))
    assert btf.field("sock", "a").bit_offset == 8


def test_endless_modifiers_end() -> None:
    """A typedef of itself."""
    types = struct.pack("<III", 1, (4 << 24) | 1, 8) + struct.pack("<III", 6, 2, 0)
    types += struct.pack("<III", 0, 8 << 24, 2)
    strings = b"\0sock\0sk\0"
    data = HEADER.pack(0xEB9F, 1, 0, HEADER.size, 0, len(types), len(types), len(strings)) + types + strings
    with suppress(BtfError):
        Btf(data).field("sock", "sk.deeper")


def test_this_kernel(request) -> None:
    import pytest

    if not VMLINUX.exists():
        pytest.skip("this kernel gives no BTF")
    btf = Btf.load()
    assert btf.has_function("tcp_v4_connect")
    assert btf.field("sock", "__sk_common.skc_daddr").byte_offset == 0
    assert btf.struct_size("sock") > 500
