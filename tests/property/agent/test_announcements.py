"""The ring's decoder: any bytes are an announcement or none, and a path is a pod's only where it says so whole."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from agent.identity.paths import parse
from agent.kernel.capture import CgroupCreatedEvent, FirstSightEvent, announcement_of

UID = "8a3f6c1e-1b2c-4d5e-8f90-112233445566"
CONTAINER = "0123456789abcdef" * 4
ROOM = 320  # CGROUP_PATH_BYTES


@given(st.binary(max_size=400))
def test_arbitrary_bytes(record: bytes) -> None:
    found = announcement_of(record)
    if found is not None:
        assert len(record) >= 16


@given(st.sampled_from([1, 2]), st.binary(max_size=340))
def test_arbitrary_bytes_behind_a_true_kind(kind: int, rest: bytes) -> None:
    match announcement_of(struct.pack("<I", kind) + rest):
        case FirstSightEvent():
            assert kind == 1
            assert len(rest) >= 28
        case CgroupCreatedEvent(path=path):
            assert kind == 2
            assert "\0" not in path
        case None:
            assert len(rest) < 28


@given(st.integers(0, (1 << 32) - 1), st.integers(0, (1 << 64) - 1), st.integers(0, (1 << 64) - 1))
def test_what_is_written_can_be_read(number: int, cgroup_id: int, cookie: int) -> None:
    assert announcement_of(struct.pack("<IIQQII", 1, number, cgroup_id, cookie, number, 0)) == FirstSightEvent(
        pid=number, cgroup_id=cgroup_id, netns_cookie=cookie, netns_inode=number
    )
    path = f"/kubepods/pod{UID}/{CONTAINER}".encode()
    record = struct.pack("<IIQ", 2, number, cgroup_id) + path.ljust(ROOM, b"\0")
    assert announcement_of(record) == CgroupCreatedEvent(cgroup_id=cgroup_id, path=path.decode())


@given(st.integers(0, ROOM))
def test_a_path_that_is_cut_names_its_pod_or_none(depth: int) -> None:
    """The kernel cuts a path that is longer than its room; bpf_probe_read_kernel_str() ends it with a NUL."""
    path = f"/{'d' * depth}/kubepods/pod{UID}/{CONTAINER}".encode()[: ROOM - 1]
    found = announcement_of(struct.pack("<IIQ", 2, 0, 7) + path.ljust(ROOM, b"\0"))
    assert isinstance(found, CgroupCreatedEvent)
    pod = parse(found.path)
    assert pod is None or (pod.pod_uid == UID and pod.container_id in ("", CONTAINER))
