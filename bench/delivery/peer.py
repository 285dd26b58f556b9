"""The receiving process of a figure: `python -m bench.delivery.peer KIND ...`, prints its port, serves until killed.

Kinds: `raw` reads and parses frames from TCP and does nothing else: the limit; `ingest` is the real server in front
of a recorder that commits nothing; `aggregator URL` is all of it.
"""

import asyncio
import struct
import sys
from pathlib import Path

import numpy as np

from aggregator.__main__ import collect_rarely
from aggregator.ingest import IngestLimits, IngestServer, LoopbackPlaintext, MutualTLS, PlaintextOnLoopback, ServerTls
from aggregator.ingest.server import ingest_server
from aggregator.model.link import Link
from aggregator.model.protocol import Direction
from aggregator.model.resolution import FlowIdentity, Resolution, Resolved
from aggregator.model.workload import Workload
from aggregator.services.recording.deliveries import Delivery, Recorded
from aggregator.services.recording.recorder import Recorder
from aggregator.store import open_store
from wattle.v1 import flowlink_pb2

LIMITS = IngestLimits(
    batches_per_second=1e6, window_batches=200, window_bytes=64 << 20, live_peers=10**7, max_batch_bytes=4 << 20
)


class View:
    """A cluster view of pods by UID and by address, as cheap as a dict: the real one is another figure."""

    generation = 1

    def known_until(self, _cluster: str) -> None:
        return None

    def resolve(self, flow: FlowIdentity, _at: object) -> Resolution:
        own = Workload(
            cluster=flow.cluster, namespace="shop", kind="Deployment", name=f"app-{flow.pod_uid[-4:]}-{flow.node}"
        )
        ip = int(flow.remote_ip)
        other = Workload(cluster=flow.cluster, namespace="shop", kind="Deployment", name=f"peer-{ip & 0xFFFFFF}")
        src, dst = (own, other) if flow.direction is Direction.EGRESS else (other, own)
        return Resolved(link=Link(src=src, dst=dst, protocol=flow.protocol, port=flow.port))


class NullRecorder:
    """Says committed at once."""

    async def submit(self, delivery: Delivery) -> None:
        delivery.on_recorded(delivery, Recorded.COMMITTED, "")


async def raw() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                (size,) = struct.unpack("<I", await reader.readexactly(4))
                data = await reader.readexactly(size)
            except asyncio.IncompleteReadError:
                return
            batch = flowlink_pb2.AgentMessage.FromString(data).batch
            columns = flowlink_pb2.Columns.FromString(batch.columns)
            for name in columns.DESCRIPTOR.fields_by_name:
                np.array(getattr(columns, name))
            writer.write(struct.pack("<Q", batch.seq))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=8 << 20)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def ingest(url: str) -> None:
    server = IngestServer(
        store=open_store(url), recorder=NullRecorder(), authenticator=LoopbackPlaintext(), limits=LIMITS
    )
    async with ingest_server(server, "127.0.0.1:0", PlaintextOnLoopback()) as port:
        print(port, flush=True)
        await asyncio.get_running_loop().create_future()


async def aggregator(url: str, certificates: str = "") -> None:
    collect_rarely()
    store = open_store(url)
    recorder = Recorder(sink=store.sink, resolver=View(), known_addresses=store.external_addresses)
    authenticator = MutualTLS() if certificates else LoopbackPlaintext()
    directory = Path(certificates)
    security = (
        ServerTls(
            certificate_file=directory / "server.crt",
            key_file=directory / "server.key",
            client_ca_file=directory / "ca.crt",
        )
        if certificates
        else PlaintextOnLoopback()
    )
    server = IngestServer(store=store, recorder=recorder, authenticator=authenticator, limits=LIMITS)
    async with asyncio.TaskGroup() as group, ingest_server(server, "127.0.0.1:0", security) as port:
        group.create_task(recorder.run())
        print(port, flush=True)
        await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["raw"]:
            asyncio.run(raw())
        case ["ingest", url]:
            asyncio.run(ingest(url))
        case ["aggregator", url, *certificates]:
            asyncio.run(aggregator(url, *certificates))
