"""A reader for BTF, the kernel's own description of its types.

Enters: the bytes of /sys/kernel/btf/vmlinux. Leaves: where a struct's field lies, the value of an enumerator, whether a
function is known. Invariant: any other bytes give BtfError, never another exception and never an endless loop.
Format: https://docs.kernel.org/bpf/btf.html
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from agent.errors import BtfError

Words = NDArray[Any]

VMLINUX: Final = Path("/sys/kernel/btf/vmlinux")

_MAGIC: Final = 0xEB9F
_HEADER: Final = struct.Struct("<HBBIIIII")
_TYPE: Final = struct.Struct("<III")
_MEMBER: Final = struct.Struct("<III")
_PAIR: Final = struct.Struct("<II")

_ARRAY, _STRUCT, _UNION, _ENUM, _TYPEDEF = 3, 4, 5, 6, 8
_VOLATILE, _CONST, _RESTRICT, _FUNC, _TYPE_TAG, _ENUM64 = 9, 10, 11, 12, 18, 19
_MODIFIERS: Final = frozenset({_TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _TYPE_TAG})
# Bytes that follow the 12-byte type record: (fixed, per element).
_TRAILING: Final = {
    1: (4, 0),  # int
    _ARRAY: (12, 0),
    _STRUCT: (0, 12),
    _UNION: (0, 12),
    _ENUM: (0, 8),
    13: (0, 8),  # function prototype
    14: (4, 0),  # variable
    15: (0, 12),  # data section
    17: (4, 0),  # declaration tag
    _ENUM64: (0, 12),
}
_LAST_KIND: Final = 19
# By kind, in words: a record without its elements, and each element.
_LENGTHS: Final = [
    ((_TYPE.size + fixed) // 4, each // 4) for fixed, each in (_TRAILING.get(k, (0, 0)) for k in range(_LAST_KIND + 1))
]
_MAX_DEPTH: Final = 64  # nesting of anonymous members and modifiers; the kernel's own limit is 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """Where a field lies; `bits` is 0 unless it is a bit-field."""

    bit_offset: int
    bits: int

    @property
    def byte_offset(self) -> int:
        return self.bit_offset // 8

    @property
    def shift(self) -> int:
        return self.bit_offset % 8

    @property
    def mask(self) -> int:
        return (1 << self.bits) - 1 if self.bits else 0xFF


@dataclass(frozen=True, slots=True)
class _Type:
    name: int
    info: int
    size_or_type: int
    position: int  # of what follows the record

    @property
    def kind(self) -> int:
        return (self.info >> 24) & 0x1F

    @property
    def elements(self) -> int:
        return self.info & 0xFFFF

    @property
    def has_bit_fields(self) -> bool:
        return bool(self.info >> 31)


class Btf:
    """The types of one kernel."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        try:
            magic, version, _flags, header_len, type_off, type_len, str_off, str_len = _HEADER.unpack_from(data)
        except struct.error as exc:
            raise BtfError("reading the BTF header: too short") from exc
        if magic != _MAGIC or version != 1:
            raise BtfError(f"reading the BTF header: magic {magic:#x}, version {version}")
        self._strings, self._strings_end = header_len + str_off, header_len + str_off + str_len
        start, end = header_len + type_off, header_len + type_off + type_len
        if end > len(data) or self._strings_end > len(data):
            raise BtfError("reading the BTF header: a section lies outside the data")
        self._start, self._end = start, end
        self._words: Words = np.frombuffer(data[start : end - (end - start) % 4], "<u4")
        self._places = self._walk()
        self._found: dict[tuple[int, str], int | None] = {}
        self._names = self._words[self._places]
        self._kinds = (self._words[self._places + 1] >> 24) & 0x1F

    @classmethod
    def load(cls, path: Path = VMLINUX) -> Btf:
        try:
            return cls(path.read_bytes())
        except OSError as exc:
            raise BtfError(f"reading {path}: {exc.strerror}; a kernel with CONFIG_DEBUG_INFO_BTF is needed") from exc

    def field(self, struct_name: str, path: str) -> Field:
        """Find `path`, dotted, through anonymous structs and unions."""
        type_id = self._find(_STRUCT, struct_name)
        if type_id is None:
            raise BtfError(f"finding {struct_name}.{path}: the kernel has no struct {struct_name}")
        offset = bits = 0
        for part in path.split("."):
            found = self._member(self._resolve(type_id), part, 0)
            if found is None:
                raise BtfError(f"finding {struct_name}.{path}: no field {part}")
            type_id, relative, bits = found
            offset += relative
        return Field(bit_offset=offset, bits=bits)

    def struct_size(self, name: str) -> int:
        type_id = self._find(_STRUCT, name)
        if type_id is None:
            raise BtfError(f"sizing struct {name}: the kernel has none")
        return self._type(type_id).size_or_type

    def enumerator(self, enum_name: str, name: str) -> int | None:
        """Value of one enumerator, or None; only its unsigned low 32 bits."""
        type_id = self._find(_ENUM, enum_name)
        if type_id is None:
            return None
        record = self._type(type_id)
        for element in range(record.elements):
            name_offset, value = _PAIR.unpack_from(self._data, record.position + 8 * element)
            if self._string(name_offset) == name:
                return int(value)
        return None

    def has_function(self, name: str) -> bool:
        return self._find(_FUNC, name) is not None

    def _walk(self) -> Words:
        """Where each record begins, in words. The one loop over all 130,000: it makes no object a record."""
        words, place, places = self._words.data, 0, []
        while place + 1 < len(words):
            places.append(place)
            info = words[place + 1]
            kind = (info >> 24) & 0x1F
            if not 1 <= kind <= _LAST_KIND:
                raise BtfError(f"reading BTF types: unknown kind {kind}")
            fixed, each = _LENGTHS[kind]
            place += fixed + each * (info & 0xFFFF)
        if 4 * place != self._end - self._start:
            raise BtfError("reading BTF types: the last record is cut")
        return np.array(places, np.int64)

    def _find(self, kind: int, name: str) -> int | None:
        """The first type of this kind and name. It is looked for in the strings: 15 names are asked of 130,000."""
        if (kind, name) not in self._found:
            whole = self._offsets(b"\0" + name.encode() + b"\0", 1)
            of_kind = self._kinds == kind
            rows = np.flatnonzero(of_kind & np.isin(self._names, whole))
            if not len(rows):  # a string may be the tail of another, though none of the kernel's is
                rows = np.flatnonzero(of_kind & np.isin(self._names, self._offsets(name.encode() + b"\0", 0)))
            self._found[kind, name] = int(rows[0]) + 1 if len(rows) else None
        return self._found[kind, name]

    def _offsets(self, wanted: bytes, skipped: int) -> list[int]:
        offsets = []
        place = self._data.find(wanted, self._strings, self._strings_end)
        while place >= 0:
            offsets.append(place + skipped - self._strings)
            place = self._data.find(wanted, place + 1, self._strings_end)
        return [each for each in offsets if each]  # 0 is "no name"

    def _type(self, type_id: int) -> _Type:
        if not 1 <= type_id <= len(self._places):
            raise BtfError(f"following BTF type {type_id}: there are {len(self._places)}")
        position = self._start + 4 * int(self._places[type_id - 1])
        name, info, size_or_type = _TYPE.unpack_from(self._data, position)
        return _Type(name, info, size_or_type, position + _TYPE.size)

    def _string(self, offset: int) -> str:
        start = self._strings + offset
        end = self._data.find(b"\0", start, self._strings_end)
        if start >= self._strings_end or end < 0:
            raise BtfError(f"reading BTF string {offset}: outside the string section")
        return self._data[start:end].decode("utf-8", "replace")

    def _resolve(self, type_id: int) -> int:
        for _ in range(_MAX_DEPTH):
            record = self._type(type_id)
            if record.kind not in _MODIFIERS:
                return type_id
            type_id = record.size_or_type
        raise BtfError("following BTF modifiers: too deep")

    def _member(self, type_id: int, name: str, depth: int) -> tuple[int, int, int] | None:
        if depth > _MAX_DEPTH:
            raise BtfError("following anonymous BTF members: too deep")
        record = self._type(type_id)
        if record.kind not in (_STRUCT, _UNION):
            return None
        for element in range(record.elements):
            name_offset, member_type, raw = _MEMBER.unpack_from(self._data, record.position + 12 * element)
            offset, bits = (raw & 0xFFFFFF, raw >> 24) if record.has_bit_fields else (raw, 0)
            if name_offset:
                if self._string(name_offset) == name:
                    return member_type, offset, bits
                continue
            found = self._member(self._resolve(member_type), name, depth + 1)
            if found is not None:
                return found[0], offset + found[1], found[2]
        return None
