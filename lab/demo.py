"""`make demo`: a lab, an agent and an aggregator on this machine, and what Wattle makes of the traffic.

Enters: a scenario file. Leaves: on the terminal the tables, the policy and what it leaves out; in build/demo/
policy.yaml, links.json and certificate.json. Nothing is left running, however it ends.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from lab.client import LabHandle, up
from lab.errors import LabError
from lab.parts import ROOT, Part, PartError, as_owner, as_root, python
from lab.review import Review
from lab.showing import draw, show_certificate, show_left_out, show_links, show_policy, show_where_next

HTTP = ("127.0.0.1", 8470)
INGEST = ("127.0.0.1", 8471)
QUERY = ("127.0.0.1", 8472)
AGENT_HEALTH = ("127.0.0.1", 9464)
OUTPUT = ROOT / "build" / "demo"
DEADLINE_SECONDS = 120.0


class DemoError(LabError):
    """The demo cannot go on."""


def main(arguments: list[str]) -> int:
    """Show the product once, or until Ctrl-C. 0 when the policy is right."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("scenario", type=Path)
    parser.add_argument("--once", action="store_true", help="exit when everything has been shown")
    parser.add_argument("--without", action="append", default=[], metavar="NS/NAME", help="leave a workload out")
    parser.add_argument(
        "--deadline",
        type=float,
        default=DEADLINE_SECONDS,
        metavar="SECONDS",
        help="give up a wait after; more where the machine is emulated",
    )
    parser.add_argument("--picture", type=Path, metavar="FILE", help="also draw the tables as SVG")
    options = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return run(options.scenario, console, options)
    except LabError as exc:
        console.print(f"[bold red]{exc}", soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        return 130


def _interrupt(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


def run(scenario: Path, console: Console, options: argparse.Namespace) -> int:
    """The whole demo on one screen: check, start, wait, show."""
    check_ports()
    become_root()
    prepare_output()
    with console.status("checking that this kernel takes the eBPF programs") as status, contextlib.ExitStack() as stack:
        check_kernel()
        status.update("starting the lab: pods, Services, servers, traffic")
        lab = up(scenario, without=options.without, deadline_seconds=options.deadline)
        stack.callback(take_down, lab)
        watcher = Part(
            "agent",
            as_root(python("lab.tether", "--finally-down", lab.name, "--", *agent(lab))),
            log=OUTPUT / "agent.log",
        )
        stack.callback(watcher.stop)
        aggregator = Part(
            "aggregator",
            as_owner(python("lab.tether", "--", *python("aggregator"))),
            log=OUTPUT / "aggregator.log",
            environment=aggregator_environment(lab),
        )
        stack.callback(aggregator.stop)
        parts = (watcher, aggregator)
        review = Review(f"http://{HTTP[0]}:{HTTP[1]}/api/v1", timeout_seconds=options.deadline / 12)
        status.update("waiting for the agent's first committed batch")
        until("the agent delivered nothing", parts, options.deadline, review.agent_reports)
        status.update("watching: every client twice, every CronJob once more")
        until("the traffic did not come round", parts, options.deadline, traffic_came_round(lab))
        status.update("waiting until no new link appears")
        namespace, kind, name = lab.select.split("/")
        until("the links kept changing", parts, options.deadline, links_are_steady(review, namespace))
        proposal = review.namespace_policy(namespace)
        leave_files(proposal, review.namespace_links(namespace))
        status.stop()
        links = review.workload_links(namespace, kind, name)
        show_links(console, lab.select, links)
        show_policy(console, review.workload_policy(namespace, kind, name))
        show_left_out(console, proposal)
        show_certificate(console, proposal["certificate"])
        if options.picture is not None:
            draw(options.picture, lab.select, links, proposal["certificate"])
        show_where_next(console, review.address, OUTPUT)
        if options.once:
            return 0 if proposal["certificate"]["holds"] else 1
        stay(parts)
    return 0


def take_down(lab: LabHandle) -> None:
    """The agent's tether does it, too, when this process is killed; here an error would be seen."""
    with contextlib.suppress(LabError):
        lab.down()


def check_ports() -> None:
    """Another server on a port of ours would be shown instead of Wattle."""
    for host, port in (HTTP, INGEST, QUERY, AGENT_HEALTH):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as exc:
                raise DemoError(
                    f"another server listens on {host}:{port}, which the demo needs: "
                    f"stop it (`ss -ltnp 'sport = :{port}'` names it) and run `make demo` again"
                ) from exc


def become_root() -> None:
    """The lab and the agent need root; ask once, before anything is started."""
    if os.geteuid() == 0:
        return
    if shutil.which("sudo") is None or subprocess.run(["sudo", "-v"], check=False).returncode != 0:
        raise DemoError("the lab and the agent need root: run `make demo` as root, or as a user who may use sudo")


def prepare_output() -> None:
    """An empty build/demo that belongs to the checkout's owner: a demo starts from nothing."""
    for command in (["rm", "-rf", str(OUTPUT)], ["mkdir", "-p", str(OUTPUT)]):
        done = subprocess.run(as_owner(command), capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise DemoError(f"preparing {OUTPUT}: {done.stderr.strip()}; give the folder to the checkout's owner")


def check_kernel() -> None:
    """Load, attach, self-test, exit: `python -m agent --check`."""
    checked = subprocess.run(as_root(python("agent", "--check")), cwd=ROOT, capture_output=True, text=True, check=False)
    if checked.returncode != 0:
        said = (checked.stderr or checked.stdout).strip().splitlines()
        raise DemoError(f"this kernel does not take the eBPF programs: {said[-1] if said else 'no reason given'}")


def agent(lab: LabHandle) -> list[str]:
    """The agent's command line for this lab: its node, its log folders, the aggregator on loopback."""
    return python(
        "agent",
        "--plaintext",
        *("--node", next(iter(lab.nodes))),
        *("--kubelet-cgroup", f"/{lab.cgroup_roots[0].name}"),
        *("--pod-logs", str(lab.pod_logs_dir)),
        *("--pin-directory", str(lab.state / "pins")),
        *("--server", f"{INGEST[0]}:{INGEST[1]}"),
        *("--http-listen", f"{AGENT_HEALTH[0]}:{AGENT_HEALTH[1]}"),
        *("--drain-interval-seconds", "1"),
    )


def aggregator_environment(lab: LabHandle) -> dict[str, str]:
    """The aggregator's settings for this lab: loopback, embedded SQLite, the lab's own objects."""
    return {
        "WATTLE_DEVELOPMENT": "true",
        "WATTLE_DATABASE_URL": f"sqlite:///{OUTPUT / 'wattle.db'}",
        "WATTLE_MANIFESTS": str(lab.objects_dir),
        "WATTLE_HTTP_LISTEN": f"{HTTP[0]}:{HTTP[1]}",
        "WATTLE_INGEST_LISTEN": f"{INGEST[0]}:{INGEST[1]}",
        "WATTLE_QUERY_LISTEN": f"{QUERY[0]}:{QUERY[1]}",
    }


def until(complaint: str, parts: tuple[Part, ...], deadline_seconds: float, condition: Callable[[], bool]) -> None:
    """Poll until it holds; a part that ended, or the deadline, is an error."""
    deadline = time.monotonic() + deadline_seconds
    while not condition():
        for part in parts:
            part.must_run()
        if time.monotonic() > deadline:
            raise PartError(f"{complaint} within {deadline_seconds:.0f} s; see {OUTPUT}/*.log")
        time.sleep(0.25)


def traffic_came_round(lab: LabHandle) -> Callable[[], bool]:
    """Holds when every client has gone round twice, and every CronJob has run once more, since now."""

    def rounds() -> dict[str, int]:
        status = lab.status()
        return {f"{client['pod']}/{client['container']}": client["rounds"] // 2 for client in status["clients"]} | {
            job["workload"]: job["succeeded"] for job in status["jobs"]
        }

    before = rounds()
    return lambda: all(count > before.get(name, 0) for name, count in rounds().items())


def links_are_steady(review: Review, namespace: str) -> Callable[[], bool]:
    """Holds when no link has come for several drain intervals."""
    history: list[frozenset[str]] = []

    def steady() -> bool:
        history.append(frozenset(row["id"] for row in review.namespace_links(namespace)))
        return len(history) > 16 and bool(history[-1]) and len(set(history[-16:])) == 1

    return steady


def leave_files(proposal: dict[str, Any], links: list[dict[str, Any]]) -> None:
    """policy.yaml, links.json and certificate.json, for the checkout's owner."""
    texts = {
        "policy.yaml": proposal["yaml"],
        "links.json": json.dumps(links, indent=2) + "\n",
        "certificate.json": json.dumps(proposal["certificate"], indent=2) + "\n",
    }
    for name, text in texts.items():
        written = subprocess.run(
            as_owner(["tee", str(OUTPUT / name)]), input=text, text=True, capture_output=True, check=False
        )
        if written.returncode != 0:
            raise DemoError(f"writing {OUTPUT / name}: {written.stderr.strip()}")


def stay(parts: tuple[Part, ...]) -> None:
    """Keep everything running until Ctrl-C."""
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            for part in parts:
                part.must_run()
            time.sleep(0.5)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
