"""One side of a delivery in a network namespace of its own: `python -m tests.chaos.peer aggregator|producer DIRECTORY`.

Over TLS, as plaintext is for loopback only. The directory holds certificates, the database, the spool and the ledger.
"""

import asyncio
import sys
from pathlib import Path

from agent.spool import Spool
from agent.stream import FlowLinkStream, MutualTls, StreamConfig
from aggregator.ingest import MutualTLS, ServerTls
from aggregator.store import migrate, open_store
from tests.chaos.ledger import batch_for
from tests.flowlink import CLUSTER, FakeResolver, running_aggregator, until

ADDRESS = "10.203.7.2"
PORT = 8471


async def aggregator(directory: Path) -> None:
    url = f"sqlite:///{directory}/wattle.db"
    migrate(url)
    tls = ServerTls(
        certificate_file=directory / "server.crt",
        key_file=directory / "server.key",
        client_ca_file=directory / "ca.crt",
    )
    async with running_aggregator(
        open_store(url),
        resolver=FakeResolver(addresses={"10.0.0.2": "everyone"}),
        authenticator=MutualTLS(),
        security=tls,
        listen=f"{ADDRESS}:{PORT}",
    ):
        await asyncio.get_running_loop().create_future()


async def producer(directory: Path) -> None:
    security = MutualTls(
        ca_file=directory / "ca.crt", certificate_file=directory / "agent.crt", key_file=directory / "agent.key"
    )
    spool = Spool(directory / "spool", boot_id="boot")
    config = StreamConfig(
        target=f"{ADDRESS}:{PORT}",
        security=security,
        cluster=CLUSTER,
        agent_id="node-0",
        boot_id="boot",
        version="test",
        server_name="localhost",
    )
    stream = FlowLinkStream(spool=spool, config=config, on_settings=lambda _settings: None)
    task = asyncio.create_task(stream.run())
    stopped = (directory / "stop").exists
    with (directory / "ledger").open("a", buffering=1) as ledger:
        while not stopped():
            seq = spool.next_seq
            spool.append(batch_for(0, seq))
            ledger.write(f"{seq}\n")
            await asyncio.sleep(0.02)
    await until(lambda: not spool.waiting_batches and stream.committed_seq == spool.next_seq - 1, seconds=120)
    task.cancel()
    (directory / "done").write_text(f"{spool.epoch} {spool.next_seq}")
    spool.close()


if __name__ == "__main__":
    asyncio.run({"aggregator": aggregator, "producer": producer}[sys.argv[1]](Path(sys.argv[2])))
