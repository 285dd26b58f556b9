"""Composes the agent and runs it.

Enters: environment and flags. Leaves: an exit status: 0 done, 1 failed, 2 wrong settings, 3 this kernel takes no
backend, 4 loaded but the self-test failed, 5 not ready (--health), 6 something does not work (--doctor).
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from typing import TYPE_CHECKING

from google.protobuf.internal import api_implementation

from agent import capabilities
from agent.config import AgentConfig, Mode, boot_id, kernel_release, read_config
from agent.doctor import State, examine, lines
from agent.errors import AgentError, ConfigError, KernelError, NoBackendError, SelfTestError
from agent.health import HealthServer, ask
from agent.identity.cidrs import find_cidrs
from agent.kernel.maps import Instant
from agent.node import Node
from agent.pipeline import Pipeline
from agent.spool import Spool, SpoolLimits
from agent.stream import ChannelSecurity, FlowLinkStream, MutualTls, PlaintextLoopback, StreamConfig, TokenTls
from wattle import __version__
from wattle.v1 import flowlink_pb2

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger("agent")

FLUSH_SECONDS = 4.0  # SIGTERM drains and flushes within five
ALIVE_INTERVALS = 10
ILL = 6
EXIT_STATUS = ((ConfigError, 2), (NoBackendError, 3), (SelfTestError, 4))


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    try:
        return _run(*read_config(sys.argv[1:]))
    except AgentError as exc:
        sys.stderr.write(f"wattle-agent: {exc}\n")
        if isinstance(exc, KernelError):
            for lacking in capabilities.missing(capabilities.effective()):
                sys.stderr.write(f"wattle-agent: {capabilities.complaint(lacking)}\n")
        return next((status for kind, status in EXIT_STATUS if isinstance(exc, kind)), 1)


def _run(config: AgentConfig, mode: Mode) -> int:
    if mode.health:
        complaint = ask(config.http_listen)
        sys.stdout.write((complaint or "ready") + "\n")
        return 5 if complaint else 0
    if api_implementation.Type() != "upb":
        raise ConfigError("protobuf runs on its pure-Python fallback, 187 times slower; install a wheel with upb")
    if mode.doctor:
        return _examine(config)
    if mode.check:
        return _check(config)
    return asyncio.run(_serve(config, once=mode.once))


async def _serve(config: AgentConfig, *, once: bool) -> int:
    return await Agent(config).serve(once=once)


def _examine(config: AgentConfig) -> int:
    findings = []
    for found in examine(config):
        sys.stdout.write("\n".join(lines([found])) + "\n")
        sys.stdout.flush()
        findings.append(found)
    return ILL if any(found.state is State.ILL for found in findings) else 0


def _check(config: AgentConfig) -> int:
    node = Node.open(config, pinned=False)
    try:
        for sentence in node.describe():
            sys.stdout.write(sentence + "\n")
    finally:
        node.close(orderly=True)
    return 0


class Agent:
    """Everything that lives as long as the process."""

    def __init__(self, config: AgentConfig) -> None:
        self._config = config
        self._report_seconds = config.report_interval_seconds
        self._cidr_processes = config.cidr_processes
        self._spool = Spool(
            config.spool_directory,
            boot_id=boot_id(config.proc_root),
            limits=SpoolLimits(memory_bytes=config.spool_memory_bytes, disk_bytes=config.spool_disk_bytes),
        )
        self._stream = FlowLinkStream(
            spool=self._spool,
            config=StreamConfig(
                target=config.server,
                security=_security(config),
                cluster=config.cluster,
                agent_id=config.node,
                boot_id=boot_id(config.proc_root),
                version=__version__,
                server_name=config.server_name,
            ),
            on_settings=self._on_settings,
        )
        self._node = Node.open(config, pinned=True)
        for sentence in self._node.describe():
            log.info("%s", sentence)
        self._pipeline = Pipeline(
            source=self._node.capture,
            resolver=self._node.resolver,
            sink=self._spool,
            open_flows=self._node.open_flows,
            interval_seconds=config.drain_interval_seconds,
        )
        self._node.begin(self._pipeline)
        self._health = HealthServer(alive=self._is_stuck, ready=self._is_unready, refresh=self._node.publish)

    async def serve(self, *, once: bool) -> int:
        """Until SIGTERM or SIGINT; then drain, flush, leave."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        flushed = committed = False
        try:
            if self._config.http_listen:
                await self._health.start(self._config.http_listen)
            async with asyncio.TaskGroup() as tasks:
                stream = tasks.create_task(self._stream.run(), name="stream")
                captures = [] if once else self._captures(tasks)
                if not once:
                    await stop.wait()
                for task in captures:
                    task.cancel()
                committed = await self._flush()
                flushed = True
                stream.cancel()
        except* AgentError as failed:
            raise failed.exceptions[0] from None
        finally:
            await self._health.stop()
            self._pipeline.close()
            self._node.close(orderly=flushed)
            self._spool.close()
        return 0 if committed or not once else 1

    def _captures(self, tasks: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
        return [
            tasks.create_task(self._pipeline.run(), name="drain"),
            tasks.create_task(self._pipeline.listen(self._node.capture.ring.fileno()), name="announcements"),
            tasks.create_task(
                _every(lambda: self._config.open_interval_seconds, self._pipeline.look_at_open), name="open connections"
            ),
            tasks.create_task(_every(lambda: self._report_seconds, self._report), name="node report"),
        ]

    async def _flush(self) -> bool:
        """Drain what is left and give the stream a moment; what it does not take stays in the spool."""
        await self._pipeline.turn_once()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + FLUSH_SECONDS
        while self._spool.waiting_batches and loop.time() < deadline:  # noqa: ASYNC110  the spool has no event to wait for
            await asyncio.sleep(0.02)
        return not self._spool.waiting_batches

    async def _report(self) -> None:
        hints = await asyncio.to_thread(find_cidrs, self._config.proc_root, self._cidr_processes)
        now = Instant.now()
        self._stream.submit_report(
            flowlink_pb2.NodeReport(
                version=__version__,
                kernel=kernel_release(),
                backend=self._node.capture.backend.name,
                refused=[*self._node.capture.refused, *self._node.capture.skipped],
                map_fill_permille=round(self._pipeline.map_fill * 1000),
                spool_bytes=self._spool.waiting_bytes,
                spool_batches=self._spool.waiting_batches,
                clock=flowlink_pb2.Clock(boot_ns=now.boot_ns, wall_ns=now.wall_ns),
                cidr_hints=[
                    flowlink_pb2.CidrHint(process=hint.process, flag=hint.flag, value=hint.value) for hint in hints
                ],
            )
        )

    def _on_settings(self, settings: flowlink_pb2.Settings) -> None:
        if settings.drain_interval_ms:
            self._pipeline.interval_seconds = min(max(settings.drain_interval_ms, 1_000), 60_000) / 1000
        if settings.report_interval_ms:
            self._report_seconds = min(max(settings.report_interval_ms, 1_000), 600_000) / 1000
        if settings.cidr_processes:
            self._cidr_processes = tuple(settings.cidr_processes)

    def _is_stuck(self) -> str:
        silent = self._pipeline.silent_seconds()
        allowed = ALIVE_INTERVALS * self._pipeline.interval_seconds
        return f"no drain for {silent:.0f} s" if silent > allowed else ""

    def _is_unready(self) -> str:
        return "" if self._stream.first_ack_seen else "no batch has been committed by the aggregator yet"


def _security(config: AgentConfig) -> ChannelSecurity:
    if config.plaintext:
        return PlaintextLoopback()
    if config.ca_file is None:
        raise ConfigError("give ca_file with token_file or certificate_file and key_file; or plaintext, to loopback")
    if config.certificate_file is not None and config.key_file is not None:
        return MutualTls(ca_file=config.ca_file, certificate_file=config.certificate_file, key_file=config.key_file)
    if config.token_file is None:
        raise ConfigError("give token_file, or certificate_file and key_file: the aggregator asks who speaks")
    return TokenTls(ca_file=config.ca_file, token_file=config.token_file)


async def _every(seconds: Callable[[], float], step: Callable[[], object]) -> None:
    while True:
        done = step()
        if asyncio.iscoroutine(done):
            await done
        await asyncio.sleep(seconds())


if __name__ == "__main__":
    sys.exit(main())
