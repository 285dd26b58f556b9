"""Decode: every promise of FlowBatch holds, or the batch is refused with a reason; whatever the bytes."""

import random
import time
from collections.abc import Callable

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from aggregator.ingest.decode import DAY_MS, MAX_RECORDS, MalformedBatchError, decode
from aggregator.services.recording.deliveries import COLUMNS, FlowBatch
from tests.flowlink import KIND, Flow, batch_of, flows, with_columns
from wattle.v1 import flowlink_pb2

NOW_MS = 1_790_000_000_000
NOW_NS = NOW_MS * 1_000_000
Change = Callable[[flowlink_pb2.Batch], None]


def good(count: int = 3, *, plain: bool = False) -> flowlink_pb2.Batch:
    return batch_of(flows(count), end_ns=NOW_NS, plain=plain)


def decoded(batch: flowlink_pb2.Batch) -> FlowBatch:
    return decode(batch.SerializeToString(), batch, now_ms=NOW_MS)


def set_column(name: str, value: int, *, row: int = 1) -> Change:
    def change(batch: flowlink_pb2.Batch) -> None:
        columns = flowlink_pb2.Columns.FromString(batch.columns)
        getattr(columns, name)[row] = value
        with_columns(batch, columns)

    return change


def append_column(name: str, value: int) -> Change:
    def change(batch: flowlink_pb2.Batch) -> None:
        columns = flowlink_pb2.Columns.FromString(batch.columns)
        getattr(columns, name).append(value)
        with_columns(batch, columns)

    return change


def set_interval(start_ns: int, end_ns: int) -> Change:
    def change(batch: flowlink_pb2.Batch) -> None:
        batch.interval.start_wall_ns, batch.interval.end_wall_ns = start_ns, end_ns

    return change


def set_checksum(batch: flowlink_pb2.Batch) -> None:
    batch.crc32c ^= 1


def set_remotes(batch: flowlink_pb2.Batch) -> None:
    batch.remotes = bytes(15)


def set_remotes4(batch: flowlink_pb2.Batch) -> None:
    batch.remotes4 = batch.remotes4[:-1]


def set_nul(batch: flowlink_pb2.Batch) -> None:
    batch.processes[1] = "ja\0va"


def set_long_name(batch: flowlink_pb2.Batch) -> None:
    batch.locals[0].pod_name = "x" * 254


def set_address(batch: flowlink_pb2.Batch) -> None:
    batch.locals[0].address = bytes(4)


def set_garbage(batch: flowlink_pb2.Batch) -> None:
    import google_crc32c

    batch.columns = b"\x0a\xff\xff\xff\xff"
    batch.crc32c = google_crc32c.value(batch.columns)


def set_kind(name: str, value: int) -> Change:
    def change(batch: flowlink_pb2.Batch) -> None:
        setattr(batch.kinds[0], name, value)

    return change


def set_port(value: int) -> Change:
    def change(batch: flowlink_pb2.Batch) -> None:
        batch.ports[0] = value

    return change


def set_step(step_ms: int) -> Change:
    def change(batch: flowlink_pb2.Batch) -> None:
        batch.interval.step_ms = step_ms

    return change


def set_many_kinds(batch: flowlink_pb2.Batch) -> None:
    batch.kinds.extend([batch.kinds[0]] * MAX_RECORDS)


def set_many_ports(batch: flowlink_pb2.Batch) -> None:
    batch.ports.extend([80] * MAX_RECORDS)


BAD: list[tuple[str, str, Change]] = [
    ("checksum", "crc32c", set_checksum),
    ("protobuf", "columns", set_garbage),
    ("unequal", "tx_bytes", append_column("tx_bytes", 1)),
    ("unequal", "steps", append_column("steps", 1)),
    ("unequal", "errno", append_column("errno", 1)),
    ("unequal", "port", set_step(0)),
    ("index", "local", set_column("local", 7)),
    ("index", "remote", set_column("remote", 7)),
    ("index", "kind", set_column("kind", 7)),
    ("index", "process", set_kind("process", 2**31)),
    ("index", "server_port", set_column("server_port", 7)),
    ("range", "port", set_port(0)),
    ("range", "port", set_port(65_536)),
    ("range", "protocol", set_kind("protocol", 1)),
    ("range", "direction", set_kind("direction", 3)),
    ("range", "direction", set_kind("direction", -1)),
    ("range", "outcome", set_kind("outcome", 0)),
    ("range", "errno", set_kind("errno", 4_096)),
    ("range", "confidence", set_kind("confidence", 9)),
    ("size", "kinds", set_many_kinds),
    ("size", "ports", set_many_ports),
    ("counter", "count", set_column("count", 2**63)),
    ("counter", "tx_bytes", set_column("tx_bytes", 2**64 - 1)),
    ("counter", "rx_bytes", set_column("rx_bytes", 2**53)),
    ("counter", "longest_ms", set_column("longest_ms", 2**64 - 1)),
    ("unequal", "longest_ms", append_column("duration_ms", 1)),
    ("time", "steps", set_column("steps", DAY_MS)),
    ("time", "steps", set_step(2**32 - 1)),
    ("time", "end_wall_ns", set_interval(NOW_NS, NOW_NS)),
    ("time", "longer than a day", set_interval(NOW_NS - 2 * DAY_MS * 10**6, NOW_NS)),
    ("future", "in the future", set_interval(NOW_NS + 25 * 3600 * 10**9, NOW_NS + 25 * 3600 * 10**9 + 1)),
    ("size", "remotes", set_remotes),
    ("size", "remotes", set_remotes4),
    ("size", "address", set_address),
    ("text", "NUL", set_nul),
    ("text", "longer", set_long_name),
]


@pytest.mark.parametrize(("label", "words", "change"), BAD, ids=[f"{label}-{words}" for label, words, _ in BAD])
def test_what_can_never_be_right_is_refused_by_name(label: str, words: str, change: Change) -> None:
    batch = good()
    decoded(batch)
    change(batch)
    with pytest.raises(MalformedBatchError, match=words) as refused:
        decoded(batch)
    assert refused.value.label == label


PLAINLY_BAD: list[tuple[str, str, Change]] = [
    ("range", "port", set_column("port", 0)),
    ("range", "port", set_column("port", 65_536)),
    ("unequal", "errno", append_column("errno", 1)),
    ("unequal", "kind", append_column("kind", 0)),
    ("unequal", "server_port", set_step(1)),
    ("index", "remote", set_column("remote", 7)),
    ("index", "process", set_column("process", 2**31)),
    ("range", "protocol", set_column("protocol", 1)),
    ("range", "direction", set_column("direction", 3)),
    ("range", "outcome", set_column("outcome", 0)),
    ("range", "errno", set_column("errno", 2**32 - 1)),
    ("range", "confidence", set_column("confidence", 9)),
    ("time", "last_ms", set_column("last_ms", 0)),
    ("time", "last_ms", set_column("last_ms", DAY_MS + 1)),
]


@pytest.mark.parametrize(
    ("label", "words", "change"), PLAINLY_BAD, ids=[f"{label}-{words}" for label, words, _ in PLAINLY_BAD]
)
def test_the_spelling_of_the_previous_version_is_held_to_the_same(label: str, words: str, change: Change) -> None:
    batch = good(plain=True)
    decoded(batch)
    change(batch)
    with pytest.raises(MalformedBatchError, match=words) as refused:
        decoded(batch)
    assert refused.value.label == label


def test_both_spellings_mean_the_same() -> None:
    records = [
        Flow(port=80, count=3),
        Flow(port=53, protocol=17, remote="2001:db8::1", process="nginx", confidence=2),
        Flow(port=81, remote="10.0.0.9", direction=1, outcome=3),
        Flow(port=443, count=3),
    ]

    def spelled(*, plain: bool) -> list[tuple[object, ...]]:
        batch = decoded(batch_of(records, end_ns=NOW_NS, plain=plain))
        columns, kinds = batch.columns, batch.kinds
        return [
            (
                *(batch.locals[columns.local[row]], *batch.remotes[columns.remote[row]].tolist()),
                *(int(getattr(columns, name)[row]) for name in COLUMNS if name not in ("local", "remote", "kind")),
                *(int(getattr(kinds, name)[columns.kind[row]]) for name in KIND if name not in ("errno", "process")),
                batch.processes[kinds.process[columns.kind[row]]],
            )
            for row in range(len(columns))
        ]

    assert spelled(plain=False) == spelled(plain=True)
    assert len(decoded(batch_of(records, end_ns=NOW_NS, plain=True)).kinds) == 3


def test_how_long_connections_were_open_is_taken_from_who_tells_it() -> None:
    """Agents of before told a sum, which says nothing of any one connection."""
    batch = batch_of([Flow(longest_ms=3_600_000)], end_ns=NOW_NS)
    assert decoded(batch).columns.longest_ms.tolist() == [3_600_000]
    columns = flowlink_pb2.Columns.FromString(batch.columns)
    columns.duration_ms.append(columns.longest_ms.pop())
    assert decoded(with_columns(batch, columns)).columns.longest_ms.tolist() == [0]


def test_too_many_records_are_refused() -> None:
    with pytest.raises(MalformedBatchError, match="flow records"):
        decoded(good(MAX_RECORDS + 1))


def test_columns_arrive_as_they_were() -> None:
    batch = batch_of([Flow(port=80, count=3), Flow(port=443, remote="2001:db8::1", process="nginx")], end_ns=NOW_NS)
    flow_batch = decoded(batch)
    assert flow_batch.columns.port.tolist() == [80, 443]
    assert flow_batch.columns.count.tolist() == [3, 1]
    assert flow_batch.processes == ["", "java", "nginx"]
    assert [int(high) << 64 | int(low) for high, low in flow_batch.remotes] == [
        0xFFFF_0A00_0002,
        0x2001_0DB8_0000_0000_0000_0000_0000_0001,
    ]
    assert flow_batch.columns.first_ms.tolist() == [NOW_MS - 4_000] * 2
    assert not flow_batch.clamped


def test_a_batch_may_carry_losses_alone() -> None:
    flow_batch = decoded(batch_of([], end_ns=NOW_NS, loss={"map_full": 4}))
    assert len(flow_batch.columns) == 0
    assert flow_batch.losses[0] == 4


@pytest.mark.parametrize(("ahead_seconds", "expected_ms"), [(3600, NOW_MS), (-30 * 3600, NOW_MS - DAY_MS)])
def test_a_believable_wrong_clock_is_moved_into_range_and_counted(ahead_seconds: int, expected_ms: int) -> None:
    flow_batch = decoded(batch_of([Flow(first_ms=5_000, last_ms=5_000)], end_ns=NOW_NS + ahead_seconds * 10**9))
    assert flow_batch.clamped
    assert flow_batch.columns.last_ms.tolist() == [expected_ms]


def test_events_cannot_lie_far_behind_their_interval() -> None:
    flow_batch = decoded(batch_of([Flow(last_ms=DAY_MS)], end_ns=NOW_NS))
    assert int(flow_batch.columns.last_ms.max()) <= NOW_MS + 15_000


def holds(flow_batch: FlowBatch) -> bool:
    columns = flow_batch.columns
    every = [getattr(columns, name) for name in COLUMNS]
    return bool(
        (columns.local < len(flow_batch.locals)).all()
        and (columns.remote < len(flow_batch.remotes)).all()
        and (columns.kind < len(flow_batch.kinds)).all()
        and (flow_batch.kinds.process < len(flow_batch.processes)).all()
        and all((column >= 0).all() for column in every)
        and all(
            int(np.asarray(column, object).sum()) < 2**53
            for column in (columns.count, columns.tx_bytes, columns.rx_bytes)
        )
        and (columns.first_ms <= columns.last_ms).all()
        and (columns.last_ms <= NOW_MS + 2 * 15_000).all()
    )


def survive(data: bytes) -> str:
    """Decode whatever it is; the outcome's name."""
    try:
        message = flowlink_pb2.AgentMessage.FromString(data)
    except DecodeError:
        return "undecodable"
    if message.WhichOneof("message") != "batch":
        return "another message"
    try:
        flow_batch = decode(data, message.batch, now_ms=NOW_MS)
    except MalformedBatchError as error:
        return error.label
    assert holds(flow_batch)
    return "valid"


def test_mutated_bytes_are_refused_or_keep_every_promise() -> None:
    rng = random.Random(20_260)
    original = flowlink_pb2.AgentMessage(batch=good(20)).SerializeToString()
    outcomes = set()
    for _ in range(5_000):
        data = bytearray(original)
        for _ in range(rng.choice((1, 1, 2, 8))):
            match rng.randrange(3):
                case 0:
                    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
                case 1:
                    del data[rng.randrange(len(data)) :]
                case _:
                    data.insert(rng.randrange(len(data) + 1), rng.randrange(256))
            if not data:
                break
        outcomes.add(survive(bytes(data)))
    assert {"undecodable", "checksum"} <= outcomes


@given(
    st.booleans(),
    st.lists(
        st.tuples(
            st.sampled_from([field.name for field in flowlink_pb2.Columns.DESCRIPTOR.fields]),
            st.integers(0, 2),
            st.integers(0, 2**32 - 1),
        ),
        max_size=4,
    ),
)
def test_columns_with_a_right_checksum_and_wrong_values(
    plain: bool,
    changes: list[tuple[str, int, int]],
) -> None:
    batch = good(plain=plain)
    columns = flowlink_pb2.Columns.FromString(batch.columns)
    for name, row, value in changes:
        column = getattr(columns, name)
        column[row:] = [value] * max(1, len(column) - row)
    with_columns(batch, columns)
    survive(flowlink_pb2.AgentMessage(batch=batch).SerializeToString())


def test_the_clock_of_the_fixtures_is_now() -> None:
    """The tests above use a fixed time; the builders' default is the real one."""
    assert abs(batch_of([]).interval.end_wall_ns - time.time_ns()) < 60 * 10**9
