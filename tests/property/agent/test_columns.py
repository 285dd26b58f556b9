"""Columns to batches and back: nothing is lost, changed, or outside its own batch's tables; any bytes encode."""

from types import SimpleNamespace

import google_crc32c
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.encode import MAX_BYTES, MAX_RECORDS, encode, varints
from agent.flow import FlowKey, FlowStats, factorize, process_text
from agent.identity.resolver import Resolver
from agent.kernel.maps import Drained, Instant
from wattle.v1 import flowlink_pb2

START = Instant(boot_ns=1_000_000_000, wall_ns=1_700_000_000_000_000_000)
END = Instant(boot_ns=6_000_000_000, wall_ns=5)


def mapped(address: bytes) -> bytes:
    return bytes(10) + b"\xff\xff" + address


class Paths:
    """Every third group is a pod's, every third the node's, every third unknown."""

    def find(self, cgroup_id: int, *, pid: int = 0) -> str | None:
        del pid
        if cgroup_id % 3 == 0:
            return f"/kubepods/pod8a3f6c1e-1b2c-4d5e-8f90-{cgroup_id % 16**12:012x}/{'a' * 64}"
        return "/system.slice/x.service" if cgroup_id % 3 == 1 else None


class Logs:
    def names(self, pod_uid: str) -> SimpleNamespace | None:
        return SimpleNamespace(namespace="shop", pod=f"p{pod_uid[-4:]}") if int(pod_uid[-1], 16) % 2 else None

    def container_name(self, pod_uid: str, container_id: str) -> str:
        del pod_uid, container_id
        return "main"


class WordyLogs(Logs):
    def names(self, pod_uid: str) -> SimpleNamespace:
        return SimpleNamespace(namespace="n" * 63, pod=f"{pod_uid}-{'p' * 200}")

    def container_name(self, pod_uid: str, container_id: str) -> str:
        del pod_uid, container_id
        return "c" * 63


def resolver(*, wordy: bool = False) -> Resolver:
    logs = WordyLogs() if wordy else Logs()
    return Resolver(cgroups=Paths(), logs=logs, host_netns_inode=1, mesh_ports=(15001,))  # type: ignore[arg-type]


@given(st.lists(st.integers(0, (1 << 64) - 1), min_size=1, max_size=60), st.data())
def test_varints_are_protobufs_own(values: list[int], data: st.DataObject) -> None:
    column = varints(np.array(values, np.uint64))
    reference = flowlink_pb2.Columns(count=values).SerializeToString()
    assert column.data == reference[-len(column.data) :]
    first = data.draw(st.integers(0, len(values)))
    last = data.draw(st.integers(first, len(values)))
    reference = flowlink_pb2.Columns(count=values[first:last]).SerializeToString()
    assert column.slice(first, last) == reference[len(reference) - len(column.slice(first, last)) :]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), max_size=80))
def test_factorize_numbers_equal_rows_alike(rows: list[tuple[int, int]]) -> None:
    pairs = np.array(rows, np.uint64).reshape(-1, 2)
    numbers, firsts = factorize(pairs[:, 0], pairs[:, 1])
    assert len(firsts) == len(set(rows))
    assert [rows[firsts[number]] for number in numbers] == rows


@settings(max_examples=60)
@given(st.binary(max_size=40 * (FlowKey.itemsize + FlowStats.itemsize)), st.integers(1, 7))
def test_any_drained_bytes_become_batches_that_can_be_read(raw: bytes, at_most: int) -> None:
    """The map decoder: whatever the kernel's memory holds, every row is in a batch or in a counter."""
    rows = len(raw) // (FlowKey.itemsize + FlowStats.itemsize)
    keys = np.frombuffer(raw[: rows * FlowKey.itemsize], FlowKey)
    stats = np.frombuffer(raw[rows * FlowKey.itemsize : rows * (FlowKey.itemsize + FlowStats.itemsize)], FlowStats)
    drained = Drained(keys=keys, stats=stats, start=START, end=END)
    attributed = resolver().attribute(drained)
    columns = attributed.columns
    batches = list(encode(columns, start=START, end=END, loss=flowlink_pb2.Loss(map_full=3), max_records=at_most))
    seen = 0
    for records, batch in batches:
        assert batch.ByteSize() <= MAX_BYTES
        assert batch.interval.end_wall_ns > batch.interval.start_wall_ns
        assert google_crc32c.value(batch.columns) == batch.crc32c
        found = flowlink_pb2.Columns.FromString(batch.columns)
        lengths = {len(getattr(found, field.name)) for field in found.DESCRIPTOR.fields} - {0}
        assert lengths == ({records} if records else set())
        assert records <= min(at_most, MAX_RECORDS)
        addresses = [mapped(batch.remotes4[place : place + 4]) for place in range(0, len(batch.remotes4), 4)]
        addresses += [batch.remotes[place : place + 16] for place in range(0, len(batch.remotes), 16)]
        assert batch.processes[0] == ""
        for i in range(records):
            row = seen + i
            side = columns.locals[columns.local[row]]
            assert batch.locals[found.local[i]].cgroup_id == side.cgroup_id
            assert batch.locals[found.local[i]].pod_uid == side.pod_uid
            assert addresses[found.remote[i]] == columns.remote[row].tobytes()
            kind = batch.kinds[found.kind[i]]
            assert batch.processes[kind.process] == process_text(columns.process[row].tobytes())
            assert (kind.protocol, kind.direction, kind.outcome, kind.errno, kind.confidence) == tuple(
                int(getattr(columns, name)[row]) for name in ("protocol", "direction", "outcome", "error", "confidence")
            )
            assert batch.ports[found.server_port[i]] == columns.port[row]
            assert found.longest_ms[i] == -(-int(columns.longest_ns[row]) // 10**6)
            assert found.count[i] == min(int(columns.count[row]), (1 << 63) - 1)
            first_ms = (max(int(columns.first_ns[row]), START.boot_ns) - START.boot_ns) // 10**6
            assert found.first_step[i] == min(first_ms // batch.interval.step_ms, (1 << 32) - 1)
        seen += records
    assert seen == len(columns)
    assert [batch.loss.map_full for _records, batch in batches] == [3] + [0] * (len(batches) - 1), "told once"


def test_addresses_of_both_families_are_found_under_their_index() -> None:
    keys, stats = np.zeros(4, FlowKey), np.zeros(4, FlowStats)
    keys["cgroup_id"] = 3
    addresses = [mapped(bytes([10, 0, 0, 7])), bytes(range(16)), mapped(bytes([10, 0, 0, 8])), bytes(range(16))]
    keys["remote"] = np.frombuffer(b"".join(addresses), "<u8").reshape(-1, 2)
    columns = resolver().attribute(Drained(keys=keys, stats=stats, start=START, end=END)).columns
    ((_, batch),) = encode(columns, start=START, end=END, loss=flowlink_pb2.Loss())
    assert (batch.remotes4, batch.remotes) == (bytes([10, 0, 0, 7, 10, 0, 0, 8]), bytes(range(16)))
    assert list(flowlink_pb2.Columns.FromString(batch.columns).remote) == [0, 2, 1, 2]


def test_interval_without_flows_still_tells_its_losses() -> None:
    empty = Drained(keys=np.empty(0, FlowKey), stats=np.empty(0, FlowStats), start=START, end=END)
    columns = resolver().attribute(empty).columns
    ((records, batch),) = encode(columns, start=START, end=END, loss=flowlink_pb2.Loss(not_a_pod=7))
    assert (records, batch.loss.not_a_pod) == (0, 7)


def test_a_batch_that_would_be_too_large_is_cut() -> None:
    """5,000 records of 5,000 pods with the longest names: 3 MiB as one message."""
    rows = 5_000
    keys, stats = np.zeros(rows, FlowKey), np.zeros(rows, FlowStats)
    keys["cgroup_id"] = np.arange(rows) * 3 + 3
    keys["remote"][:, 0] = 1

    class Long(Logs):
        def names(self, pod_uid: str) -> SimpleNamespace:
            del pod_uid
            return SimpleNamespace(namespace="n" * 63, pod="p" * 253)

    long = Resolver(cgroups=Paths(), logs=Long(), host_netns_inode=1, mesh_ports=())  # type: ignore[arg-type]
    columns = long.attribute(Drained(keys=keys, stats=stats, start=START, end=END)).columns
    batches = list(encode(columns, start=START, end=END, loss=flowlink_pb2.Loss()))
    assert len(batches) > 1
    assert sum(records for records, _batch in batches) == rows
    assert all(batch.ByteSize() < MAX_BYTES for _records, batch in batches)
