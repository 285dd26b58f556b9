"""Kill everything, again and again, and count: `make chaos` (SECONDS=60, or KILLS=1000).

Producers with the agent's real spool and stream, the aggregator's real ingest, recorder and settler, a PostgreSQL of
its own behind a proxy that breaks COMMITs. Ends with one line: kills N, records N, N lost, N double; exit code 1
unless both are 0.
"""

import argparse
import contextlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from aggregator.store import migrate, open_store
from tests.chaos import processes
from tests.chaos.ledger import Producer, Verdict, compare, read_ledger
from tests.chaos.processes import AGGREGATOR_FAILPOINTS, PRODUCER_FAILPOINTS, Failpoint, fork
from tests.database import PostgresServer, free_port, running_postgres
from tests.flowlink import CLUSTER

PRODUCERS = 3
DRAIN_SECONDS = 120.0
PROGRESS_KILLS = 100
DRAIN_SECONDS_A_KILL = 0.5  # what the producers wrote while nobody took it


class Chaos:
    """One run."""

    def __init__(self, directory: Path, postgres: PostgresServer | None, *, seed: int) -> None:
        self._directory = directory
        self._postgres = postgres
        self._random = random.Random(seed)
        self.kills: Counter[str] = Counter()
        self._ingest_port = free_port()
        self._proxy = 0
        if postgres is None:
            self.url = self._aggregator_url = f"sqlite:///{directory}/wattle.db"
        else:
            self.url = postgres.url()
            proxy_port = free_port()
            self._aggregator_url = postgres.url(port=proxy_port)
            self._proxy = fork(lambda: processes.proxy(proxy_port, postgres.port, odds=0.02))
        self._aggregator = 0
        self._producers = [0] * PRODUCERS

    def _failpoint(self, names: tuple[str, ...], most: int) -> Failpoint:
        # Half of the processes carry a failpoint, the others wait for their kill.
        name = self._random.choice(names) if self._random.random() < 0.5 else ""
        return Failpoint(name, self._random.randint(1, most))

    def start_aggregator(self) -> None:
        failpoint = self._failpoint(AGGREGATOR_FAILPOINTS, 30)
        self._aggregator = fork(lambda: processes.aggregate(self._aggregator_url, self._ingest_port, failpoint))

    def start_producer(self, number: int, *, failing: bool = True) -> None:
        failpoint = self._failpoint(PRODUCER_FAILPOINTS, 60) if failing else Failpoint("", 1)
        self._producers[number] = fork(
            lambda: processes.produce(number, self._directory, self._ingest_port, failpoint, interval_seconds=0.004)
        )

    def reap(self) -> None:
        """Whoever met its failpoint is counted and started again."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            killed = os.WIFSIGNALED(status)
            if pid == self._aggregator:
                self.kills["aggregator"] += killed
                self.start_aggregator()
            elif pid in self._producers:
                number = self._producers.index(pid)
                self._producers[number] = 0
                if killed or not (self._directory / "stop").exists():
                    self.kills["agent"] += killed
                    self.start_producer(number, failing=not (self._directory / "stop").exists())

    def strike(self) -> None:
        """One random thing."""
        what = self._random.random()
        if self._postgres is not None and what < 0.05:
            self._postgres.stop("immediate") if what < 0.025 else self._postgres.kill()
            self.kills["postgres"] += 1
            time.sleep(self._random.uniform(0, 0.3))
            self._postgres.start()
        elif what < 0.60:
            os.kill(self._aggregator, signal.SIGKILL)
        elif what < 0.95:
            os.kill(self._random.choice([pid for pid in self._producers if pid]), signal.SIGKILL)
        else:
            frozen = self._random.choice([self._aggregator, *(pid for pid in self._producers if pid)])
            with contextlib.suppress(ProcessLookupError):
                os.kill(frozen, signal.SIGSTOP)
                time.sleep(self._random.uniform(0.3, 1.5))
                os.kill(frozen, signal.SIGCONT)

    def run(self, *, seconds: float, kills: int) -> None:
        self.start_aggregator()
        for number in range(PRODUCERS):
            self.start_producer(number)
        end = time.monotonic() + seconds if not kills else float("inf")
        told = 0
        pause_seconds = (0.05, 0.3) if kills else (0.1, 0.6)
        while time.monotonic() < end and (not kills or sum(self.kills.values()) < kills):
            time.sleep(self._random.uniform(*pause_seconds))
            with contextlib.suppress(ProcessLookupError):
                self.strike()
            self.reap()
            if sum(self.kills.values()) >= told + PROGRESS_KILLS:
                told = sum(self.kills.values())
                print(f"{told} kills", file=sys.stderr, flush=True)

    def settle(self) -> Verdict:
        """Let everything be delivered, then compare."""
        (self._directory / "stop").touch()
        deadline = time.monotonic() + DRAIN_SECONDS + sum(self.kills.values()) * DRAIN_SECONDS_A_KILL
        store = None
        while True:
            self.reap()
            done = [self._directory / f"producer-{number}" / "done" for number in range(PRODUCERS)]
            if all(path.exists() for path in done):
                store = store or open_store(self.url)
                if store.pending_count(CLUSTER) == 0:
                    break
            if time.monotonic() > deadline:
                raise SystemExit("the producers could not deliver everything in time")
            time.sleep(0.1)
        for pid in (self._aggregator, self._proxy):
            self._end(pid)
        producers = []
        for number, path in enumerate(done):
            epoch, next_seq = map(int, path.read_text().split())
            ledger = read_ledger(path.parent / "ledger")
            producers.append(
                Producer(number=number, agent_id=f"node-{number}", epoch=epoch, next_seq=next_seq, ledger=ledger)
            )
        try:
            return compare(store, producers)
        finally:
            store.close()

    def close(self) -> None:
        for pid in (self._aggregator, self._proxy, *self._producers):
            self._end(pid)

    @staticmethod
    def _end(pid: int) -> None:
        if pid:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def torment(*, seconds: float, kills: int, seed: int, sqlite: bool) -> tuple[Counter[str], Verdict]:
    """A whole run; leaves nothing behind."""
    with contextlib.ExitStack() as stack:
        postgres = None if sqlite else stack.enter_context(running_postgres())
        directory = Path(tempfile.mkdtemp(prefix="wattle-chaos-"))
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        # A child of its own migrates: the driver must start no thread and no engine before it forks.
        url = f"sqlite:///{directory}/wattle.db" if postgres is None else postgres.url()
        os.waitpid(fork(lambda: migrate(url)), 0)
        chaos = Chaos(directory, postgres, seed=seed)
        stack.callback(chaos.close)
        chaos.run(seconds=seconds, kills=kills)
        return chaos.kills, chaos.settle()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--kills", type=int, default=0, help="instead of --seconds")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--sqlite", action="store_true", help="the embedded database instead of PostgreSQL")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is taken down again
    kills, verdict = torment(
        seconds=arguments.seconds, kills=arguments.kills, seed=arguments.seed, sqlite=arguments.sqlite
    )
    for remark in verdict.remarks[:20]:
        print(remark, file=sys.stderr)
    print(f"seed {arguments.seed}; " + ", ".join(f"{who} {count}" for who, count in sorted(kills.items())))
    print(f"kills {sum(kills.values())}, records {verdict.records}, {verdict.lost} lost, {verdict.double} double")
    sys.exit(1 if verdict.lost or verdict.double or verdict.remarks else 0)


if __name__ == "__main__":
    main()
