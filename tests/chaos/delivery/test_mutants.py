"""A hundred thousand mutated batches: each is refused with a reason or keeps every promise; none stops the server."""

import random
import time
from collections import Counter
from collections.abc import Iterator

import google_crc32c
import pytest
from google.protobuf.message import DecodeError

from aggregator.errors import IngestError
from aggregator.ingest.decode import decode
from aggregator.services.recording.deliveries import FlowBatch
from aggregator.store import Scope, Store, migrate, open_store
from tests.flowlink import CLUSTER, batch_of, flows, running_aggregator, running_stream, until
from wattle.v1 import flowlink_pb2

MUTANTS = 100_000


def mutate(rng: random.Random, data: bytes) -> bytes:
    mutant = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5))):
        place = rng.randrange(len(mutant))
        match rng.randrange(4):
            case 0:
                mutant[place] ^= 1 << rng.randrange(8)
            case 1:
                mutant[place] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
            case 2:
                mutant.insert(place, rng.randrange(256))
            case _:
                del mutant[place : place + rng.randrange(1, 8)]
        if not mutant:
            break
    return bytes(mutant)


def promises(batch: FlowBatch) -> None:
    columns = batch.columns
    if len(columns):
        assert int(columns.local.max()) < len(batch.locals)
        assert int(columns.remote.max()) < len(batch.remotes)
        assert int(columns.kind.max()) < len(batch.kinds)
        assert int(batch.kinds.process.max()) < len(batch.processes)
        assert int(columns.count.max()) < 2**53
        assert int(columns.first_ms.min()) > 0


@pytest.mark.timeout(300)
def test_every_mutant_is_refused_or_sound() -> None:
    rng = random.Random(4)
    now_ms = time.time_ns() // 1_000_000
    originals = [batch_of(flows(12), plain=number % 4 == 0) for number in range(8)]
    outcomes: Counter[str] = Counter()
    for number in range(MUTANTS):
        batch = flowlink_pb2.Batch()
        batch.CopyFrom(originals[number % len(originals)])
        if number % 2:
            # Mutated columns under a right checksum: what a broken agent would send.
            batch.columns = mutate(rng, batch.columns)
            batch.crc32c = google_crc32c.value(batch.columns)
            data = batch.SerializeToString()
        else:
            data = mutate(rng, batch.SerializeToString())
        try:
            parsed = flowlink_pb2.Batch.FromString(data)
            promises(decode(data, parsed, now_ms=now_ms))
        except DecodeError:
            outcomes["undecodable"] += 1
        except IngestError:
            outcomes["refused"] += 1
        else:
            outcomes["sound"] += 1
    assert outcomes.total() == MUTANTS
    assert min(outcomes["undecodable"], outcomes["refused"], outcomes["sound"]) > 100, outcomes


@pytest.fixture
def store(sqlite_url: str) -> Iterator[Store]:
    migrate(sqlite_url)
    opened = open_store(sqlite_url)
    yield opened
    opened.close()


async def test_mutants_and_sound_batches_in_one_stream(store: Store) -> None:
    """The cursor passes every mutant; what is sound is recorded whole, what is not leaves nothing behind."""
    from agent.spool import Spool

    rng = random.Random(5)
    spool = Spool(None)
    sound = 0
    async with running_aggregator(store) as aggregator, running_stream(spool, aggregator.port):
        for number in range(600):
            batch = batch_of(flows(3))
            original = batch.columns
            if number % 3 == 0:
                batch.columns = mutate(rng, original)
            sound += batch.columns == original
            spool.append(batch, flow_records=3)
        await until(lambda: spool.waiting_batches == 0, seconds=60)
    assert sum(observed.evidence.connections for observed in store.links(Scope(cluster=CLUSTER))) == 3 * sound
    assert len(store.quarantined(CLUSTER, limit=1_000)) == 600 - sound
