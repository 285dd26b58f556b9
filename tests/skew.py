"""Records what the agent of this version says, so that the next version's aggregator can be shown to understand it.

`sudo .venv/bin/python -m tests.skew` runs the shop's lab with the real agent against a server that commits everything
and keeps it, and writes tests/integration/skew/recorded/VERSION/. Once a release, before its wire format moves on.
"""

import asyncio
import gzip
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc.aio
import yaml

from lab.client import LabHandle, running
from lab.parts import ROOT, python
from wattle import __version__
from wattle.v1 import flowlink_pb2

RECORDED = ROOT / "tests" / "integration" / "skew" / "recorded"
SECONDS = 45.0


def versions() -> list[Path]:
    """The folders of every version that was recorded."""
    return sorted(path for path in RECORDED.iterdir() if path.is_dir())


def read(path: Path) -> Iterator[bytes]:
    """The serialized AgentMessages of a file: each is preceded by its length, four bytes, the highest first."""
    with gzip.open(path) as file:
        while head := file.read(4):
            yield file.read(int.from_bytes(head))


def write(path: Path, messages: list[bytes]) -> None:
    with path.open("wb") as raw, gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as file:
        for message in messages:
            file.write(len(message).to_bytes(4) + message)


class _Keeper:
    """Welcomes, commits and keeps."""

    def __init__(self) -> None:
        self.kept: list[bytes] = []

    async def connect(
        self, requests: AsyncIterator[bytes], _context: object
    ) -> AsyncIterator[flowlink_pb2.ServerMessage]:
        async for raw in requests:
            self.kept.append(raw)
            message = flowlink_pb2.AgentMessage.FromString(raw)
            match message.WhichOneof("message"):
                case "hello":
                    welcome = flowlink_pb2.Welcome(
                        committed_seq=message.hello.first_seq - 1,
                        window_batches=32,
                        window_bytes=8 << 20,
                        max_batch_bytes=1 << 20,
                        columns_version=2,
                    )
                    yield flowlink_pb2.ServerMessage(welcome=welcome)
                case "batch":
                    yield flowlink_pb2.ServerMessage(ack=flowlink_pb2.Ack(committed_seq=message.batch.seq))
                case "gap":
                    yield flowlink_pb2.ServerMessage(ack=flowlink_pb2.Ack(committed_seq=message.gap.to_seq))


async def record(lab: LabHandle) -> list[bytes]:
    keeper = _Keeper()
    server = grpc.aio.server()
    handler = grpc.stream_stream_rpc_method_handler(
        keeper.connect, response_serializer=flowlink_pb2.ServerMessage.SerializeToString
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("wattle.v1.FlowLink", {"Connect": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    agent = await asyncio.create_subprocess_exec(
        *python("agent", "--plaintext", "--node", next(iter(lab.nodes))),
        *("--kubelet-cgroup", f"/{lab.cgroup_roots[0].name}"),
        *("--pod-logs", str(lab.pod_logs_dir)),
        *("--pin-directory", str(lab.state / "pins")),
        *("--server", f"127.0.0.1:{port}", "--drain-interval-seconds", "2"),
        cwd=ROOT,
    )
    await asyncio.sleep(SECONDS)
    agent.terminate()
    await agent.wait()
    await server.stop(1)
    return keeper.kept


def main() -> int:
    folder = RECORDED / __version__
    folder.mkdir(parents=True, exist_ok=True)
    with running(ROOT / "lab" / "shop.yaml") as lab:
        messages = asyncio.run(record(lab))
        objects = [
            document
            for path in sorted(lab.objects_dir.rglob("*.yaml"))
            for document in yaml.safe_load_all(path.read_text())
            if document
        ]
    write(folder / "agent.flowlink.gz", messages)
    (folder / "objects.yaml").write_text(yaml.safe_dump_all(objects, sort_keys=True))
    (folder / "flowlink.descriptor").write_bytes(flowlink_pb2.DESCRIPTOR.serialized_pb)
    return 0


if __name__ == "__main__":
    sys.exit(main())
